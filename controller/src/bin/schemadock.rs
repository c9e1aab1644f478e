//! The command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Two crates speak TLS; which cryptography they use is said here. An error means it was said already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    schemadock_controller::cli::main()
}
