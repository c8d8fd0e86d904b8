//! When windows begin and end.

use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use flamewalk_push::{Options, PushError, Pusher, SendError, Sink, Window};

use crate::profiles::example;

struct Times(mpsc::Sender<(SystemTime, SystemTime)>);

impl Sink for Times {
    fn name(&self) -> String {
        "times".to_owned()
    }

    fn send(&mut self, window: &Window) -> Result<(), SendError> {
        let _ = self.0.send((window.begin, window.end));
        Ok(())
    }
}

#[test]
fn windows_follow_each_other_and_end_with_the_seconds() {
    let mut options = Options::default();
    options.window = Duration::from_secs(1);
    let (sender, times) = mpsc::channel();
    let start = SystemTime::now();
    let pusher = Pusher::start(options, vec![Box::new(Times(sender))], || Ok(example())).unwrap();
    let whole: Vec<_> = (0..3).map(|_| times.recv().unwrap()).collect();
    pusher.stop(Duration::from_secs(60));
    let last = times.recv().unwrap();
    let second = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!(whole[0].0 >= start && last.1 <= SystemTime::now());
    for (begin, end) in &whole {
        // However late a busy machine is: the second is over, and no window goes on to the next while there is time.
        assert!(second(*end) > second(*begin), "{begin:?} to {end:?}");
    }
    let all = [whole.as_slice(), &[last]].concat();
    assert!(all.windows(2).all(|two| two[0].1 == two[1].0), "{all:?}");
}

#[test]
fn windows_that_are_too_short_are_refused() {
    let mut options = Options::default();
    options.window = Duration::from_millis(999);
    let refused = Pusher::start(options, Vec::new(), || Ok(example())).unwrap_err();
    assert!(matches!(refused, PushError::Window { .. }), "{refused}");
}
