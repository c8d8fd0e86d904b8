//! Components: WASI preview 1 commands that are wrapped into preview 2 ones, and a handler of HTTP requests.

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

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

/// A component that handles HTTP requests (`wasi:http/incoming-handler`), with the functions `search`, which waits for the
/// host in between, and `render`: a path that begins with `/s` is searched, and takes three times the time on a processor.
///
/// # Errors
///
/// [`Error::Component`] if its sources are damaged.
pub fn http_handler() -> Result<Vec<u8>, Error> {
    let encode = || {
        let mut module = wat::parse_str(include_str!("../sources/http_handler.wat"))?;
        let mut interfaces = Resolve::default();
        let package = interfaces.push_str("http_handler.wit", include_str!("../sources/http_handler.wit"))?;
        let world = interfaces.select_world(&[package], Some("handler"))?;
        embed_component_metadata(&mut module, &interfaces, world, StringEncoding::UTF8)?;
        ComponentEncoder::default().validate(true).module(&module)?.encode()
    };
    encode().map_err(|source| Error::Component { source: source.into() })
}
