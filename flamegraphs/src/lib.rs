//! Flame graphs and tables of flamewalk profiles.
//!
//! [`svg`] draws a profile as an interactive flame graph, [`hottest`] lists the functions that cost most, and
//! [`report`] makes a page to explore it in a browser. [`annotate`](annotate()) takes one function apart, by line and by
//! instruction; [`headroom`](headroom()) tells how deep the stack was, [`breakdown`](breakdown()) what threads, labels and
//! modules cost. [`Filter`] and [`merge`](merge()) make other profiles for all of them, and [`comparison`] tells two builds
//! apart. All compute shares from weights, and all go by the names that [`Names`](flamewalk_profile::Names) shows.
//!
//! ```
//! use flamewalk_flamegraphs::{Options, hottest, svg};
//! use flamewalk_profile::{Event, Frame, Profile, Tally};
//!
//! let mut profile = Profile::default();
//! profile.metadata.event = Event::time("cpu");
//! let main = profile.intern(Frame::guest("main"));
//! let leaf = profile.intern(Frame::guest("leaf"));
//! profile.add(&[main, leaf], Tally { samples: 3, weight: 3_000_000 })?;
//! profile.add(&[main], Tally { samples: 1, weight: 1_000_000 })?;
//!
//! let mut graph = Vec::new();
//! svg(&profile, &Options::default(), &mut graph)?;
//! assert!(graph.starts_with(b"<?xml"));
//!
//! let table = hottest(&profile, 10);
//! assert_eq!(table.rows[0].name, "leaf");
//! assert_eq!(table.rows[0].self_share, 0.75);
//! print!("{table}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod amount;
mod annotate;
mod breakdown;
mod category;
pub mod comparison;
mod error;
mod filter;
mod headline;
mod headroom;
mod hottest;
mod listing;
mod merge;
mod render;
pub mod report;
mod svg;
mod table;
mod tree;

pub use annotate::{AnnotateError, Annotation, Body, BodyId, Cost, annotate};
pub use breakdown::{Breakdown, By, Part, breakdown};
pub use error::FlamegraphError;
pub use filter::{Filter, FilterError, Pattern};
pub use headline::summary;
pub use headroom::{HeadroomRow, HeadroomTable, headroom};
pub use hottest::{Hottest, Row, hottest};
pub use listing::{Listing, ListingLine, Subject};
pub use merge::{MergeError, merge};
pub use svg::{Options, Orientation, svg};
