# The worker of plugin-node.yaml. README.md has the command.
FROM registry.example/sidecar-shim:0.1.0
# The shim's image has the library that it imports.
COPY memlock.py /hooks/
# Arguments of a pod are appended, so the worker is named with --worker and not behind `--`.
ENTRYPOINT ["/sidecar-shim", "--mode", "persistent", "--worker", "python3 /hooks/memlock.py"]
