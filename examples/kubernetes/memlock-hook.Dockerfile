# Image of the worker in plugin-node.yaml. README.md has the build command.
FROM registry.example/sidecar-shim:0.1.0
# The base image has the library that it imports.
COPY memlock.py /hooks/
# Kubernetes appends the pod's arguments, so the worker is set with --worker instead of after `--`.
ENTRYPOINT ["/sidecar-shim", "--mode", "persistent", "--worker", "python3 /hooks/memlock.py"]
