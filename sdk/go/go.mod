module sidecar-shim.example/hook

go 1.22
