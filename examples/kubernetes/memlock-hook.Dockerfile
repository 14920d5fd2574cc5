FROM registry.example/sidecar-shim:0.1.0
# The base image has the SDK for Python. Copy other files that the hook imports likewise.
COPY memlock.py /hooks/
# Kubernetes and KubeVirt append their arguments, so the worker is set with --worker instead of
# after `--`.
ENTRYPOINT ["/sidecar-shim", "--mode", "persistent", "--worker", "python3 /hooks/memlock.py"]
