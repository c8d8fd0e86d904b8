//! Hands a stream of profiles to the systems that store them: Pyroscope, OTLP, folders of files.
