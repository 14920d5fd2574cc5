# The worker of legacy-image.yaml and plugin-domain.yaml. README.md has the command.
FROM registry.example/sidecar-shim:0.1.0
# The shim's image has the library that it imports.
COPY smbios.py /hooks/
# KubeVirt appends its arguments, so the worker is named with --worker and not behind `--`.
ENTRYPOINT ["/sidecar-shim", "--mode", "persistent", "--worker", "python3 /hooks/smbios.py"]
