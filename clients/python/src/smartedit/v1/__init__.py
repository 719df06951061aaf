"""Messages and gRPC stubs generated from `proto/smartedit/v1`."""
