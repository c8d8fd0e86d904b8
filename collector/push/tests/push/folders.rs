//! Folders of files, of which the last ones are kept.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use flamewalk_profile::{Format, format};
use flamewalk_push::{Folder, PushError, SendError, Sink, Window};

use crate::profiles::{example, stacks};

fn window(number: u64) -> Window {
    let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_020 + 10 * number);
    Window::new(example(), begin, begin + Duration::from_secs(10))
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The first begins 1,795,000,020 s after 1970.
fn name(number: u64, ending: &str) -> String {
    format!("20261118T1107{:02}.000Z-{}{ending}", 10 * number, std::process::id())
}

#[test]
fn the_last_files_are_kept_whole_and_no_others_are_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("profiles");
    let mut sink = Folder::new(&path).unwrap().max_files(2).format(Format::Folded);
    let others = ["notes.folded", "20200101T000000.000Z-1.pb.gz"];
    others.iter().for_each(|other| fs::write(path.join(other), "").unwrap());
    // Of a process that has ended.
    fs::write(path.join("20200101T000000.000Z-1.folded"), "").unwrap();
    for number in 0..2 {
        sink.send(&window(number)).unwrap();
    }
    let mut expected: Vec<_> = others.map(str::to_owned).into();
    expected.extend((0..2).map(|number| name(number, ".folded")));
    expected.sort();
    assert_eq!(names(&path), expected);
    for number in 0..2 {
        let read = format::read_file(&path.join(name(number, ".folded"))).unwrap();
        assert_eq!(stacks(&read), stacks(&example()));
    }
}

/// Of two sinks with one folder, one gave the other's file a name before it was whole, and processes of the same number in
/// several containers replaced each other's.
#[test]
fn folders_that_are_one_share_it() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for format in [Format::Pprof, Format::Folded, Format::Folded] {
            let mut sink = Folder::new(folder.path()).unwrap().format(format);
            scope.spawn(move || (0..3).for_each(|number| sink.send(&window(number)).unwrap()));
        }
    });
    let mut expected: Vec<_> = (0..3)
        .flat_map(|number| [".pb.gz", ".folded", "-2.folded"].map(|ending| name(number, ending)))
        .collect();
    expected.sort();
    assert_eq!(names(folder.path()), expected);
    for name in expected {
        let read = format::read_file(&folder.path().join(name)).unwrap();
        assert_eq!(stacks(&read), stacks(&example()));
    }
}

#[test]
fn files_are_removed_when_they_take_too_much_room_but_for_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = Folder::new(folder.path()).unwrap();
    sink.send(&window(0)).unwrap();
    let size = fs::metadata(folder.path().join(name(0, ".pb.gz"))).unwrap().len();
    let mut sink = sink.max_bytes(3 * size);
    (1..5).for_each(|number| sink.send(&window(number)).unwrap());
    assert_eq!(names(folder.path()).len(), 3);
    let mut sink = sink.max_bytes(0).max_files(0);
    sink.send(&window(5)).unwrap();
    assert_eq!(names(folder.path()).len(), 1);
}

#[test]
fn files_are_removed_when_they_are_old() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = Folder::new(folder.path()).unwrap().max_age(Duration::from_secs(3_600));
    (0..3).for_each(|number| sink.send(&window(number)).unwrap());
    let age = |number, seconds| {
        let file = fs::File::options().write(true).open(folder.path().join(name(number, ".pb.gz"))).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    };
    age(0, 4_000);
    age(1, 3_000);
    sink.send(&window(3)).unwrap();
    assert_eq!(names(folder.path()), [1, 2, 3].map(|number| name(number, ".pb.gz")));
}

/// It once was that they stayed for ever.
#[test]
fn what_was_abandoned_unfinished_is_removed_when_it_is_old() {
    let folder = tempfile::tempdir().unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    let files = [("unfinished-1-1", 2 * day), ("unfinished-1-2", day / 2), ("unfinished-thesis", 2 * day)];
    for (name, age) in files {
        let file = fs::File::create_new(folder.path().join(name)).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }
    Folder::new(folder.path()).unwrap().send(&window(0)).unwrap();
    let left = [name(0, ".pb.gz"), "unfinished-1-2".to_owned(), "unfinished-thesis".to_owned()];
    assert_eq!(names(folder.path()), left);
}

#[test]
fn a_folder_that_is_gone_may_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("profiles");
    let mut sink = Folder::new(&path).unwrap();
    fs::remove_dir(&path).unwrap();
    assert!(matches!(sink.send(&window(0)), Err(SendError::Temporary { .. })));
    fs::create_dir(&path).unwrap();
    sink.send(&window(0)).unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let refused = Folder::new(folder.path().join("file")).unwrap_err();
    assert!(matches!(refused, PushError::Folder { .. }), "{refused}");
}
