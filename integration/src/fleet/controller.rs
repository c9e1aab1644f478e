//! A copy of the controller as a child process.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use super::process::Process;

/// A copy of the controller.
#[derive(Debug)]
pub struct Controller {
    dir: PathBuf,
    etcd: String,
    process: Process,
}

impl Controller {
    pub(super) fn new(dir: &Path, number: usize, etcd: &str) -> Controller {
        let dir = dir.join(format!("c{number}"));
        std::fs::create_dir_all(&dir).expect("the fleet's directory can be used");
        let process = Process::new(format!("controller {number}"), dir.join("controller.log"));
        Controller { dir, etcd: etcd.to_owned(), process }
    }

    /// Starts it, with that in its environment.
    pub fn start(&mut self, environment: &[(&str, &str)]) {
        let mut arguments = vec![
            format!("--etcd={}", self.etcd),
            format!("--state-dir={}", self.dir.join("state").display()),
        ];
        if let Ok(scale) = std::env::var("SCHEMADOCK_TIME_SCALE") {
            arguments.push(format!("--time-scale={scale}"));
        }
        self.process.start("schemadock-controller", &arguments, environment);
    }
}

impl Deref for Controller {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Controller {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
