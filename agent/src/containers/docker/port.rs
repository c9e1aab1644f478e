//! Whether a port of the host is free. Docker does not tell; only trying does.

/// Why nobody could listen there now; none where somebody could.
pub(super) async fn taken(address: &str, port: u16) -> Option<String> {
    match tokio::net::TcpListener::bind((address, port)).await {
        Ok(_) => None,
        Err(error) => Some(match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!(
                    "port {port} on {address} is taken by another program: end it, or choose another port"
                )
            }
            std::io::ErrorKind::AddrNotAvailable => {
                format!("{address} is not an address of this host: check the agent's setting `address`")
            }
            _ => format!("port {port} on {address} cannot be used: {error}"),
        }),
    }
}
