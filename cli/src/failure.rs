//! Why flamewalk could not do what it was asked to: one sentence for each reason, with what to do about it.

use std::io;
use std::path::PathBuf;

use crate::terminal;

/// The exit status of every failure, as `env` and `timeout` have it.
pub(crate) const EXIT_STATUS: u8 = 125;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot read `{}`: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },

    #[error("cannot write `{}`: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },

    #[error("`{}` has no ending that names a format; use {known}", path.display())]
    OutputFormat { path: PathBuf, known: String },

    #[error("`--label` names `{key}` twice, and a store has one value for it")]
    LabelTwice { key: String },

    #[error("`-o -` would mix the profile with {other} on standard output; name a file")]
    StandardOutput { other: &'static str },

    #[error("cannot write to standard output: {source}")]
    Print { source: io::Error },

    #[error("`{}` cannot be read as a profile: {reason}", path.display())]
    NotProfile { path: PathBuf, reason: String },

    #[error("`{}`: {reason}", path.display())]
    Filter { path: PathBuf, reason: String },

    #[error("nothing is left of `{}`, filtered by {filter}", path.display())]
    NothingLeft { path: PathBuf, filter: String },

    #[error("the profiles cannot be merged: {0}")]
    Merge(#[from] flamewalk_flamegraphs::MergeError),

    #[error("{reason}")]
    Compare { reason: String },

    #[error(
        "--fail-above cannot tell a rise from noise: `{}` holds neither the number of its samples nor their period; compare \
         .flamewalk or .pb.gz files, or give the weight of one sample with --period", path.display()
    )]
    NoiseUnknown { path: PathBuf },

    #[error("a comparison cannot be written to `{}`; use .svg or .html, or --format", path.display())]
    ComparisonFormat { path: PathBuf },

    #[error(
        "--work was given {given} times; give it once for both sides, or for the base and for the new build"
    )]
    Work { given: usize },

    #[error(transparent)]
    Annotate(#[from] flamewalk_flamegraphs::AnnotateError),

    #[error("no source line of `{name}` is known: {reason}; --wat and --machine show its instructions")]
    NoLines { name: String, reason: String },

    #[error(
        "`{name}` was inlined wherever it was sampled, and has no instructions of its own; annotate its caller"
    )]
    OnlyInlined { name: String },

    #[error(
        "the profile does not know the instructions of `{name}`; write it as .flamewalk, which keeps them"
    )]
    NoInstructions { name: String },

    #[error("`{}` was compiled ahead of time, and has no bytecode to show; give --guest the binary that it was made from", path.display())]
    NoBytecode { path: PathBuf },

    #[error("`{}` is not the guest that was profiled: of `{name}`, {reason}", path.display())]
    OtherGuest { path: PathBuf, name: String, reason: &'static str },

    #[error("`{}` is code for another machine: only that of x86-64 can be shown", path.display())]
    Architecture { path: PathBuf },

    #[error("cannot open a browser ({reason}); open `{}`, or set $BROWSER", path.display())]
    Browser { path: PathBuf, reason: String },

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

    #[error("the process is not profiled: {0}")]
    Attach(#[from] flamewalk_attach::Error),

    #[error("process {pid} offers no profiles from inside")]
    NotOffered { pid: i32 },

    #[error("process {pid} gives no profile from inside: {source}")]
    Inside { pid: i32, source: flamewalk_serve::FetchError },

    #[error("the live view cannot be made: {reason}")]
    Live { reason: String },

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
        terminal::say(self);
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
