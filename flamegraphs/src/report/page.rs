//! The page around the data.
//!
//! Everything in it but the data is the same in every report, and the data are compressed and in Base64, so that no
//! name can end up as markup. The policy lets the browser run this script and this style, known by their hashes, and
//! load nothing.

use std::io::{self, Write};

use base64::{Engine, prelude::BASE64_STANDARD, write::EncoderWriter};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

/// The body, without data.
const BODY: &str = include_str!("../../assets/report/body.html");
const STYLE: &str = include_str!("../../assets/report/style.css");
/// The script, in the order in which its parts depend on each other. They are one module for the browser, since a
/// page from a disk cannot import from another file.
const SCRIPTS: &[&str] = &[
    include_str!("../../assets/report/dataset.js"),
    include_str!("../../assets/report/amount.js"),
    include_str!("../../assets/report/figures.js"),
    include_str!("../../assets/report/branches.js"),
    include_str!("../../assets/report/layout.js"),
    include_str!("../../assets/report/search.js"),
    include_str!("../../assets/report/colors.js"),
    include_str!("../../assets/report/address.js"),
    include_str!("../../assets/report/graph.js"),
    include_str!("../../assets/report/rows.js"),
    include_str!("../../assets/report/details.js"),
    include_str!("../../assets/report/table.js"),
    include_str!("../../assets/report/sandwich.js"),
    include_str!("../../assets/report/source.js"),
    include_str!("../../assets/report/timeline.js"),
    include_str!("../../assets/report/filters.js"),
    include_str!("../../assets/report/header.js"),
    include_str!("../../assets/report/controls.js"),
    include_str!("../../assets/report/main.js"),
];

/// Writes the page with `document`, which is JSON, and the columns behind it.
pub(super) fn write(document: &[u8], columns: &[u8], mut output: impl Write) -> io::Result<()> {
    let script = SCRIPTS.concat();
    let (script_hash, style_hash) = (hash(&script), hash(STYLE));
    write!(
        output,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src '{script_hash}'; \
         style-src '{style_hash}'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>flamewalk</title>\n<style>{STYLE}</style>\n</head>\n{BODY}<script type=\"text/plain\" id=\"data\">"
    )?;
    let mut encoder = EncoderWriter::new(&mut output, &BASE64_STANDARD);
    let mut compressor = GzEncoder::new(&mut encoder, Compression::best());
    let length = u32::try_from(document.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    compressor.write_all(&length.to_le_bytes())?;
    compressor.write_all(document)?;
    compressor.write_all(columns)?;
    compressor.finish()?;
    encoder.finish()?;
    drop(encoder);
    write!(output, "</script>\n<script type=\"module\">{script}</script>\n</html>\n")?;
    output.flush()
}

/// As a policy names what it allows.
fn hash(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_the_assets_ends_its_element_or_leads_elsewhere() {
        for text in SCRIPTS.iter().chain([&STYLE, &BODY]) {
            assert!(!text.contains("</script") && !text.contains("</style") && !text.contains("<!--"));
            assert!(!text.contains("://") && !text.contains("eval(") && !text.contains("innerHTML"));
        }
    }

    #[test]
    fn each_part_of_the_script_opens_with_its_contract_and_is_short() {
        for script in SCRIPTS {
            assert!(script.starts_with("// "), "{}", script.lines().next().unwrap_or_default());
            assert!(script.ends_with('\n'), "the next part starts on a line of its own");
            assert!(script.lines().count() < 400);
        }
    }
}
