//! The ready server, asked by clients that know the protocol, and by some that do not.

mod profiles;
mod refusals;
mod sockets;
mod support;
