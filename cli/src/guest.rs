//! Loading a guest: what kind of file it is, and its code.

use std::path::Path;
use std::sync::Arc;

use flamewalk::{Guest, Profiler};
use wasmtime::component::Component;
use wasmtime::{Config, Engine, Module, Precompiled};

use crate::failure::Failure;
use crate::progress::Progress;

/// A guest that can be run.
pub(crate) struct Loaded {
    pub(crate) engine: Engine,
    pub(crate) code: Code,
    /// The binary; `None` for a guest that was compiled ahead of time.
    binary: Option<Arc<[u8]>>,
    pub(crate) name: String,
}

pub(crate) enum Code {
    Module(Module),
    Component(Component),
}

impl Loaded {
    pub(crate) fn load(path: &Path, allow_precompiled: bool) -> Result<Self, Failure> {
        let file = read(path)?;
        let engine = engine(path)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        if file.starts_with(ELF) {
            let code = precompiled(&engine, path, &file, allow_precompiled)?;
            return Ok(Self { engine, code, binary: None, name });
        }
        let binary = to_binary(path, file)?;
        let compile =
            |error: wasmtime::Error| Failure::Compile { path: path.into(), reason: Failure::reason(&error) };
        let code = match is_component(&binary) {
            true => Code::Component(Component::new(&engine, &binary).map_err(compile)?),
            false => Code::Module(Module::new(&engine, &binary).map_err(compile)?),
        };
        Ok(Self { engine, code, binary: Some(binary), name })
    }

    /// Makes the guest's functions known to the profiler.
    pub(crate) fn register(&self, profiler: &Profiler, symbols: Option<&Path>) -> Result<(), Failure> {
        let mut guest = Guest::named(self.name.clone());
        guest.binary = self.binary.clone();
        if let Some(path) = symbols {
            let file = read(path)?;
            if !file.starts_with(b"\0asm") {
                return Err(Failure::NotWasm { path: path.into(), reason: found_instead(&file) });
            }
            guest.symbols = Some(file.into());
        }
        match &self.code {
            Code::Module(module) => profiler.register_module(module, guest),
            Code::Component(component) => profiler.register_component(component, guest),
        }
        .map(drop)
        .map_err(|error| match (error, symbols) {
            (flamewalk::Error::Symbols(source), Some(path)) => {
                Failure::Symbols { path: path.into(), reason: source.to_string() }
            }
            (error, _) => error.into(),
        })
    }
}

/// A guest's binary, compiled from text if it is text; `None` for one that was compiled ahead of time.
pub(crate) fn read_binary(path: &Path) -> Result<Option<Arc<[u8]>>, Failure> {
    let file = read(path)?;
    if file.starts_with(ELF) { Ok(None) } else { to_binary(path, file).map(Some) }
}

/// A guest's compiled code, as `run` would execute it.
pub(crate) struct CompiledGuest {
    pub(crate) image: Vec<u8>,
    /// `None` if the file is compiled code itself.
    pub(crate) binary: Option<Arc<[u8]>>,
}

/// Reads compiled code, or compiles the guest.
pub(crate) fn read_compiled(path: &Path) -> Result<CompiledGuest, Failure> {
    let Some(binary) = read_binary(path)? else {
        return Ok(CompiledGuest { image: read(path)?, binary: None });
    };
    let engine = engine(path)?;
    let doing = format!("compiling {}", path.display());
    let _progress = Progress::start(false, move |_| Some(doing.clone()));
    let image = match is_component(&binary) {
        true => engine.precompile_component(&binary),
        false => engine.precompile_module(&binary),
    };
    let image =
        image.map_err(|error| Failure::Compile { path: path.into(), reason: Failure::reason(&error) })?;
    Ok(CompiledGuest { image, binary: Some(binary) })
}

fn engine(path: &Path) -> Result<Engine, Failure> {
    Engine::new(&Config::new())
        .map_err(|error| Failure::Compile { path: path.into(), reason: Failure::reason(&error) })
}

/// How code that was compiled ahead of time begins, as programs of the host do.
const ELF: &[u8] = b"\x7fELF";

/// The bytes of a guest, with the whole header of a module or component.
fn to_binary(path: &Path, file: Vec<u8>) -> Result<Arc<[u8]>, Failure> {
    let not_wasm = |reason: String| Failure::NotWasm { path: path.into(), reason };
    if file.starts_with(b"\0asm") {
        const HEADER: usize = 8;
        let is_whole = file.len() >= HEADER;
        return is_whole.then(|| file.into()).ok_or_else(|| not_wasm("it ends within the header".to_owned()));
    }
    let text = std::str::from_utf8(&file)
        .ok()
        .filter(|text| text.trim_start().starts_with(['(', ';']))
        .ok_or_else(|| not_wasm(found_instead(&file)))?;
    let binary =
        wat::Parser::new().parse_str(Some(path), text).map_err(|error| not_wasm(text_error(&error)))?;
    Ok(binary.into())
}

/// By the header's second half: version 1 for modules, a layer of 1 for components.
fn is_component(binary: &[u8]) -> bool {
    matches!(binary.get(4..8), Some([_, _, 1, 0]))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|source| Failure::Read { path: path.into(), source })
}

/// What is wrong with a text and where. The parser says it in several lines, with the place after an arrow.
fn text_error(error: &wat::Error) -> String {
    let error = error.to_string();
    let what = error.lines().next().unwrap_or_default();
    let place = error.lines().find_map(|line| line.trim().strip_prefix("--> "));
    match place.map(|place| place.rsplitn(3, ':').collect::<Vec<_>>()).as_deref() {
        Some([column, line, _]) => format!("{what} (line {line}, column {column})"),
        _ => what.to_owned(),
    }
}

fn found_instead(file: &[u8]) -> String {
    match file {
        [] => "the file is empty".to_owned(),
        [b'#', b'!', ..] => "it is a script".to_owned(),
        _ => "it does not begin with `\\0asm`".to_owned(),
    }
}

fn precompiled(engine: &Engine, path: &Path, file: &[u8], allowed: bool) -> Result<Code, Failure> {
    let kind = Engine::detect_precompiled(file).ok_or_else(|| Failure::NotWasm {
        path: path.into(),
        reason: "it is a program or library of the host".to_owned(),
    })?;
    if !allowed {
        return Err(Failure::Precompiled { path: path.into() });
    }
    let mismatch =
        |error| Failure::PrecompiledMismatch { path: path.into(), reason: Failure::reason(&error) };
    // SAFETY: the user has said that the file is to be trusted like a program. Wasmtime checks that it was made
    // for this version and machine.
    unsafe {
        match kind {
            Precompiled::Module => Module::deserialize(engine, file).map(Code::Module),
            Precompiled::Component => Component::deserialize(engine, file).map(Code::Component),
        }
    }
    .map_err(mismatch)
}
