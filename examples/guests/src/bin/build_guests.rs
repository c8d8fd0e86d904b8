//! Rebuilds the committed guests from their sources; with `--check`, only says whether that would change any.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use flamewalk_guests::committed;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => rebuild(),
        ["--check"] => check(),
        _ => {
            eprintln!("usage: build-guests [--check]");
            return ExitCode::from(2);
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("build-guests: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            eprintln!("  because: {error}");
            cause = error.source();
        }
        ExitCode::FAILURE
    })
}

fn rebuild() -> Result<ExitCode, Box<dyn std::error::Error>> {
    for (guest, binary) in committed::rebuild()? {
        std::fs::write(guest.path(), &binary)?;
        println!("{} ({} bytes)", guest.path().display(), binary.len());
    }
    Ok(ExitCode::SUCCESS)
}

fn check() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let stale = committed::stale()?;
    for guest in &stale {
        eprintln!("{} is not what its sources give: run build-guests", guest.path().display());
    }
    Ok(if stale.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
