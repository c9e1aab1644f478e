//! A proxy for etcd or Docker that delays, hangs and cuts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the proxy does to everything that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes it on.
    Pass,
    /// Passes each piece on after a while.
    Delay(Duration),
    /// Keeps it until the mode changes; connections stay open.
    Hang,
    /// Ends connections, and new ones at once.
    Cut,
}

/// A proxy; ends with its owner.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens: `address:port`, or a path.
    pub address: String,
    mode: Arc<watch::Sender<Mode>>,
    listening: JoinHandle<()>,
}

impl Proxy {
    /// One to a TCP address, on a free port.
    pub async fn tcp(to: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let (mode, seen) = watch::channel(Mode::Pass);
        let to = to.to_owned();
        let listening = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (to, seen) = (to.clone(), seen.clone());
                tokio::spawn(async move {
                    if let Ok(far) = TcpStream::connect(to).await {
                        // Small frames wait for nothing else here.
                        let _ = (near.set_nodelay(true), far.set_nodelay(true));
                        serve(near.into_split(), far.into_split(), seen).await;
                    }
                });
            }
        });
        Proxy { address, mode: Arc::new(mode), listening }
    }

    /// One to a unix socket, on another.
    pub async fn unix(to: &str, at: &Path) -> Proxy {
        let listener = UnixListener::bind(at).expect("a socket can be made");
        let (mode, seen) = watch::channel(Mode::Pass);
        let to = to.to_owned();
        let listening = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (to, seen) = (to.clone(), seen.clone());
                tokio::spawn(async move {
                    if let Ok(far) = UnixStream::connect(to).await {
                        serve(near.into_split(), far.into_split(), seen).await;
                    }
                });
            }
        });
        Proxy { address: at.display().to_string(), mode: Arc::new(mode), listening }
    }

    /// Changes what it does, from now on and on the connections that stand.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.mode.send_replace(Mode::Cut);
        self.listening.abort();
    }
}

async fn serve<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    near: (R, W),
    far: (R, W),
    mode: watch::Receiver<Mode>,
) {
    let mut cut = mode.clone();
    tokio::select! {
        biased;
        _ = cut.wait_for(|mode| *mode == Mode::Cut) => {}
        () = carry(near.0, far.1, mode.clone()) => {}
        () = carry(far.0, near.1, mode) => {}
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut mode: watch::Receiver<Mode>,
) {
    let mut piece = vec![0; 64 << 10];
    loop {
        let Ok(count @ 1..) = from.read(&mut piece).await else { return };
        let Ok(now) = mode.wait_for(|mode| *mode != Mode::Hang).await.map(|mode| *mode) else { return };
        if let Mode::Delay(delay) = now {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
}
