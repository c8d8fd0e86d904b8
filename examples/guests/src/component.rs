//! Wraps WASI preview 1 commands into preview 2 components.

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
};
use wit_component::ComponentEncoder;

use crate::Error;

/// The WASI preview 2 component (`wasi:cli/run`) that does what the preview 1 command `module` does, through Wasmtime's
/// own adapter. The module's names and DWARF are kept.
///
/// # Errors
///
/// [`Error::Component`] if `module` is not a module, or no command, or imports what the adapter does not have.
pub fn as_component(module: &[u8]) -> Result<Vec<u8>, Error> {
    let encode = || {
        ComponentEncoder::default()
            .validate(true)
            .module(module)?
            .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)?
            .encode()
    };
    encode().map_err(|source| Error::Component { source: source.into() })
}
