//! Times as names of files, which sort as the times do: `20260218T093000.250Z`.

use std::time::{Duration, SystemTime};

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// A time in UTC, to the millisecond. One before 1970 is shown as its first moment.
pub(crate) fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (mut days, second) = (since.as_secs() / SECONDS_PER_DAY, since.as_secs() % SECONDS_PER_DAY);
    let is_leap =
        |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (day, hour, minute) = (days + 1, second / 3600, second / 60 % 60);
    format!(
        "{year:04}{month:02}{day:02}T{hour:02}{minute:02}{:02}.{:03}Z",
        second % 60,
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Against the system's own `date`, on days around the ends of months and years.
    #[test]
    fn it_is_what_date_says() {
        let times = [
            0,
            951_782_399,
            951_782_400,
            951_868_800,
            978_307_199,
            1_709_251_199,
            4_107_542_400,
            4_102_444_799,
        ];
        let spread = (0..60).map(|step| step * 86_400 * 97 + step * 3_661);
        for seconds in times.into_iter().chain(spread) {
            let mut date = Command::new("date");
            date.args(["-u", "-d", &format!("@{seconds}"), "+%Y%m%dT%H%M%S.000Z"]);
            let date = date.output().unwrap();
            let date = String::from_utf8(date.stdout).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(timestamp(time), date.trim());
        }
    }
}
