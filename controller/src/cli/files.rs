//! Files with target states.

use std::io::Read;

use schemadock_schema::refusal::Refusal;
use schemadock_schema::strict::read_file;

use super::Failure;
use super::target_plan::Given;

/// Reads all files strictly; `-` is stdin.
///
/// # Errors
/// Everything that is wrong with any of them, at once (exit code 2).
pub fn read(files: &[String]) -> Result<Vec<Given>, Failure> {
    let mut given = Vec::new();
    let mut refusals = Vec::new();
    for file in files {
        let bytes = match bytes_of(file) {
            Ok(bytes) => bytes,
            Err(why) => {
                refusals.push(Refusal {
                    file: Some(file.clone()),
                    path: None,
                    found: why.to_string(),
                    expected: "a file with target states".to_owned(),
                    hint: None,
                });
                continue;
            }
        };
        match read_file(file, &bytes) {
            Ok(read) => {
                given.extend(read.into_iter().map(|(name, target)| Given {
                    file: file.clone(),
                    name,
                    target,
                }));
            }
            Err(found) => refusals.extend(found),
        }
    }
    if refusals.is_empty() { Ok(given) } else { Err(Failure::Files(refusals)) }
}

fn bytes_of(file: &str) -> std::io::Result<Vec<u8>> {
    if file != "-" {
        return std::fs::read(file);
    }
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}
