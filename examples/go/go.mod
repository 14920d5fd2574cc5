module sidecar-shim.example/examples

go 1.22

require sidecar-shim.example/hook v0.0.0

// Here the SDK lies beside its examples.
replace sidecar-shim.example/hook => ../../sdk/go
