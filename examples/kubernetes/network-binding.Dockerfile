FROM registry.example/sidecar-shim:0.1.0
# The base image has the SDK for Python. Copy other files that the hook imports likewise.
COPY network_binding.py /hooks/
# Kubernetes and KubeVirt append their arguments, so the worker is set with --worker instead of
# after `--`.
# KubeVirt starts the sidecar of a network binding without arguments, so the image sets the hook
# API's version as well. v1alpha3 is the first version in which KubeVirt stops the sidecar when its
# VM migrates away.
ENTRYPOINT ["/sidecar-shim", "--version", "v1alpha3", "--mode", "persistent", "--worker", "python3 /hooks/network_binding.py"]
