//! The profile model that every output format of flamewalk is derived from.
//!
//! A [`Profile`] is a set of frames, a set of stacks made of those frames, and for each distinct stack how many
//! samples fell on it and what they stand for, by their [`Origin`]: thread, labels, and slice of time. Nothing is kept
//! per sample: however long the run, whoever fills the profile chooses slices that are long enough.
//!
//! ```
//! use flamewalk_profile::{Frame, FrameKind, Profile, Tally};
//!
//! let mut profile = Profile::default();
//! let main = profile.intern(Frame::guest("main"));
//! let write = profile.intern(Frame::host_call("wasi_snapshot_preview1", "fd_write"));
//! profile.add(&[main, write], Tally { samples: 3, weight: 3_000_000 })?;
//! profile.add(&[main], Tally { samples: 1, weight: 1_000_000 })?;
//!
//! let mut folded = Vec::new();
//! flamewalk_profile::folded::write(&profile, Default::default(), &mut folded)?;
//! assert_eq!(folded, b"main 1000000\nmain;[host] wasi_snapshot_preview1.fd_write 3000000\n");
//! # Ok::<(), flamewalk_profile::ProfileError>(())
//! ```
//!
//! # Weight
//! A sample's weight is what the sample stands for, in the unit of the profile's [`Event`]: nanoseconds for a
//! timer, events for a counter. A tick that was missed adds its weight to the next sample, so sums of weights do
//! not depend on the sampling rate, while sums of samples do. Shares are therefore computed from weights.
//!
//! # Names
//! The model keeps the parts of a frame's name. [`Names`] puts them together, for every format in the same way.

//!
//! # Formats
//! [`format::write`] and [`format::read`] know them all; the content of a file tells its format. Shown names and the
//! weight of each stack are the same through every one of them.
//!
//! | | [`native`] `.flamewalk` | [`pprof`] `.pb.gz` | [`firefox`] `.json.gz` | [`speedscope`] `.speedscope.json` | [`folded`] `.folded` |
//! |---|---|---|---|---|---|
//! | weights of stacks | yes | below 2⁶³ | of time to 2⁵¹ ns each | yes | yes, without those of 0 |
//! | numbers of samples | yes | yes | yes | yes | no |
//! | event and unit | yes | yes | yes | yes | no |
//! | kinds of frames | yes | but `Host` | yes | but `Host` | but `Host` |
//! | modules apart from names | yes | yes | of guest functions | no | no |
//! | source locations | yes | yes | yes | the file, if a name has one | no |
//! | inlined or not | yes | yes | yes | no | no |
//! | bytecode offsets | yes | of machine frames in modules | yes | no | no |
//! | function indices, text offsets, body hashes | yes | no | no | no | no |
//! | threads | yes | yes | yes | yes | no |
//! | labels | yes | yes | yes | yes | no |
//! | slices of time | yes | no | yes | their order | no |
//! | room on stacks | yes | no | no | no | no |
//! | period | yes | yes | no | no | no |
//! | start and duration | yes | yes | yes | no | no |
//! | guest's name | yes | no | yes | yes | no |
//! | notices | yes | yes | yes | no | no |
//! | engine, rates, command, end, statistics | yes | no | shown, not read | no | no |

#![forbid(unsafe_code)]

mod bounded;
mod bounds;
mod error;
pub mod firefox;
pub mod folded;
pub mod format;
mod frame;
mod function;
mod gzip;
mod json;
mod metadata;
mod names;
pub mod native;
mod origin;
pub mod pprof;
mod profile;
mod resources;
pub mod speedscope;
mod statistics;
mod track;

pub use error::ProfileError;
pub use format::Format;
pub use frame::{Frame, FrameKind, SourceLocation};
pub use function::Function;
pub use metadata::{EndReason, Event, Metadata, Unit};
pub use names::{NameId, Names, printable};
pub use origin::{Headroom, Labels, LabelsId, Origin, Thread, ThreadId};
pub use profile::{FrameId, Profile, Sample, Stack, StackId};
pub use resources::{Memory, Resources};
pub use statistics::{Imbalance, Statistics, Tally};
