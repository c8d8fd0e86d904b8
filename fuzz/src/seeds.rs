//! Writes what the fuzzer starts from, a folder for each target: `seeds FOLDER`. A small profile in every format; images
//! and their sections; a binary and its sections.

use std::{
    env,
    error::Error,
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use flamewalk_fuzz::{BINARY_SECTIONS, IMAGE_SECTIONS, IMAGES, LINES, custom_sections_of_lines, section};
use flamewalk_profile::{
    EndReason, Event, Format, Frame, Headroom, Labels, Origin, Profile, SourceLocation, Tally, Thread, format,
};
use flate2::read::GzDecoder;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(env::args_os().nth(1).ok_or("which folder?")?);
    for target in ["read", "image", "binary"] {
        fs::create_dir_all(folder.join(target))?;
    }
    profiles(&folder.join("read"))?;
    images(&folder.join("image"))?;
    binaries(&folder.join("binary"))?;
    Ok(())
}

/// Each image, and each of its sections by itself.
fn images(folder: &Path) -> Result<(), Box<dyn Error>> {
    for (choice, image) in (0_u8..).zip(IMAGES) {
        fs::write(folder.join(format!("{choice}")), [&[IMAGES.len() as u8], image].concat())?;
        for (number, name) in (0_u8..).zip(IMAGE_SECTIONS) {
            if let Some((_, contents)) = section(image, name) {
                fs::write(folder.join(format!("{choice}-{number}")), [&[choice, number], contents].concat())?;
            }
        }
    }
    Ok(())
}

/// The binary, and all its sections that symbols are read from.
fn binaries(folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::write(folder.join("0"), [&[0], LINES].concat())?;
    let mut sections = vec![1];
    for (name, data) in custom_sections_of_lines() {
        if let Some(number) = BINARY_SECTIONS.iter().position(|known| *known == name) {
            sections.push(number as u8);
            sections.extend((data.len() as u16).to_le_bytes());
            sections.extend(data);
        }
    }
    fs::write(folder.join("1"), sections)?;
    Ok(())
}

fn profiles(folder: &Path) -> Result<(), Box<dyn Error>> {
    let profile = example()?;
    for (choice, format) in
        (0_u8..).zip([Format::Native, Format::Pprof, Format::Firefox, Format::Speedscope, Format::Folded])
    {
        let mut bytes = Vec::new();
        format::write(&profile, format, &mut bytes)?;
        let mut content = vec![choice];
        match format {
            Format::Native => drop(GzDecoder::new(&bytes[14..]).read_to_end(&mut content)?),
            Format::Pprof | Format::Firefox => drop(GzDecoder::new(&*bytes).read_to_end(&mut content)?),
            Format::Speedscope | Format::Folded => content.extend_from_slice(&bytes),
        }
        fs::write(folder.join(format!("{choice}")), content)?;
        fs::write(folder.join(format!("file-{choice}")), [&[5], &*bytes].concat())?;
    }
    Ok(())
}

fn example() -> Result<Profile, Box<dyn Error>> {
    let mut profile = Profile::default();
    profile.metadata.event = Event::time("cpu");
    profile.metadata.slice = Some(Duration::from_millis(10));
    profile.metadata.end = Some(EndReason::Trap("unreachable".into()));
    profile.metadata.notices = vec!["A notice.".into()];
    let code = |name: &str, inlined| Frame {
        module: Some("app".into()),
        location: Some(SourceLocation { file: "a.rs".into(), line: 3, column: 4 }),
        function_index: Some(1),
        bytecode_offset: Some(100),
        text_offset: Some(50),
        body_hash: Some(7),
        inlined,
        ..Frame::guest(name)
    };
    let main = profile.intern(code("main", false));
    let next = profile.intern(code("next", true));
    let write = profile.intern(Frame::host_call("env", "write"));
    let thread = profile.intern_thread(Thread { id: 7, name: Some("w".into()) });
    let labels = profile.intern_labels([("tenant", "a")].into_iter().collect::<Labels>());
    let origin = Origin { thread: Some(thread), labels, slice: Some(2) };
    let stack = profile.add_from(&[main, next], origin, Tally { samples: 2, weight: 2_000_000 })?;
    profile.note_headroom(stack, Headroom { deepest_use: 10, least_left: 20 });
    profile.add_from(
        &[main, write],
        Origin { slice: Some(3), ..origin },
        Tally { samples: 1, weight: 1_000_000 },
    )?;
    profile.add(&[main], Tally { samples: 1, weight: 5 })?;
    Ok(profile)
}
