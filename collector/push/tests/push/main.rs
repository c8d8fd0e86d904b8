//! Windows on their way to servers and folders: what arrives there, and what becomes of the others.

mod folders;
mod lanes;
#[cfg(feature = "experimental-otlp")]
mod otlp;
mod profiles;
mod pyroscope;
mod server;
mod windows;
