//! Why flamewalk could not do what it was asked to: one sentence for each reason, with what to do about it.

use std::io;
use std::path::PathBuf;

/// The exit status of every failure, as `env` and `timeout` have it.
pub(crate) const EXIT_STATUS: u8 = 125;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot read `{}`: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },

    #[error("cannot write `{}`: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },

    #[error("`{}` has no ending that names a format; use .svg or .folded", path.display())]
    OutputFormat { path: PathBuf },

    #[error("`{}` is not a WebAssembly module or component: {reason}", path.display())]
    NotWasm { path: PathBuf, reason: String },

    #[error("`{}` cannot be compiled: {reason}", path.display())]
    Compile { path: PathBuf, reason: String },

    #[error("`{}` was compiled ahead of time: if you trust it like a program, add --allow-precompiled", path.display())]
    Precompiled { path: PathBuf },

    #[error(
        "`{}` was compiled for another machine, version or configuration of Wasmtime: {reason}; compile it again with \
         Wasmtime {}", path.display(), flamewalk::WASMTIME_VERSION
    )]
    PrecompiledMismatch { path: PathBuf, reason: String },

    #[error("the guest cannot be started: {reason}")]
    Instantiate { reason: String },

    #[error("the guest cannot be started: {reason}; guests are given WASI, and no other imports")]
    Import { reason: String },

    #[error("the guest exports no function `{name}`; {}", exports(known))]
    NoExport { name: String, known: Vec<String> },

    #[error("the guest has no `_start`; name one of its exports with --invoke ({})", exports(known))]
    NoStart { known: Vec<String> },

    #[error("a component's functions cannot be invoked by name; only its `wasi:cli/run` is run")]
    InvokeComponent,

    #[error("`{name}` takes {expected}, but {given} arguments were given")]
    ArgumentCount { name: String, expected: String, given: usize },

    #[error("`{text}` is not a value of type {ty}, which `{name}` takes")]
    Argument { name: String, text: String, ty: String },

    #[error("`{name}` takes or returns a value of type {ty}, which cannot be given on a command line")]
    ArgumentType { name: String, ty: String },

    #[error("cannot give the guest the directory `{directory}`: {reason}")]
    Directory { directory: String, reason: String },

    #[error("the environment has no variable `{name}` to pass on; give it a value: --env {name}=VALUE")]
    Environment { name: String },

    #[error("`{}` has other code than the guest: {reason}; give --symbols the file that the guest was stripped from", path.display())]
    Symbols { path: PathBuf, reason: String },

    #[error("no samples: {reason}")]
    NoSamples { reason: String },

    #[error("the run was not profiled: {0}")]
    Profiler(#[from] flamewalk::Error),

    #[error("cannot draw `{}`: {reason}", path.display())]
    Draw { path: PathBuf, reason: String },
}

fn exports(known: &[String]) -> String {
    match known {
        [] => "it exports no function".to_owned(),
        known => format!("it exports {}", known.join(", ")),
    }
}

impl Failure {
    /// Tells the user, and returns the exit status.
    pub(crate) fn report(&self) -> u8 {
        eprintln!("flamewalk: {self}");
        EXIT_STATUS
    }

    /// Wasmtime's errors as one line: the causes, outermost first, without a backtrace.
    pub(crate) fn reason(error: &wasmtime::Error) -> String {
        let mut reasons: Vec<String> = Vec::new();
        for cause in error.chain() {
            let cause = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            if !reasons.contains(&cause) {
                reasons.push(cause);
            }
        }
        reasons.join(": ")
    }
}
