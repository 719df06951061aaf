//! The networks, each in a file named after it, generic over the engine.
