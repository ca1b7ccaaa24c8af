//! From a name to a connection: resolved once, every address checked, one of exactly these dialled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use symphony_core::egress::{Denied, Target, address};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Longest time until a name has its addresses, waiting for a turn included.
const RESOLVE: Duration = Duration::from_secs(10);
/// To all of its addresses together.
const CONNECT: Duration = Duration::from_secs(15);
/// To one of them, while others are left.
const CONNECT_ONE: Duration = Duration::from_secs(5);
/// Names that are asked at once, of all runs. A resolver that hangs holds a thread.
const LOOKUPS: usize = 64;
/// Addresses of a name that are looked at; an answer with more is none of a usual server.
const ADDRESSES: usize = 64;

/// Makes a connection to a host.
pub trait Dial: Send + Sync {
    /// The connection, and where it goes.
    fn dial<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(TcpStream, IpAddr), Denied>>;
}

/// The way of this machine to the internet.
pub struct Internet(Arc<Semaphore>);

impl Default for Internet {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOKUPS)))
    }
}

impl Dial for Internet {
    fn dial<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(TcpStream, IpAddr), Denied>> {
        Box::pin(async move {
            let addresses = self.resolve(target).await?;
            check(target, &addresses)?;
            connect(target, &addresses).await
        })
    }
}

impl Internet {
    /// The only question that is asked about the name: whoever answers it has no second word.
    async fn resolve(&self, target: &Target) -> Result<Vec<SocketAddr>, Denied> {
        let no_address = |why: String| Denied::NoAddress { target: target.clone(), why };
        let late = || no_address(format!("no answer within {} s", RESOLVE.as_secs()));
        let lookups = self.0.clone();
        let name = (target.host.as_str().to_owned(), target.port);
        let found = async {
            let turn = lookups.acquire_owned().await.map_err(std::io::Error::other)?;
            // The turn lasts as long as the thread does, also when nobody waits for it any more.
            let asked = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                name.to_socket_addrs().map(|found| found.take(ADDRESSES + 1).collect::<Vec<_>>())
            });
            asked.await.map_err(std::io::Error::other)?
        };
        let found = timeout(RESOLVE, found).await.map_err(|_| late())?;
        let found = found.map_err(|error| no_address(error.to_string()))?;
        match found.len() {
            0 => Err(no_address("the answer is empty".to_owned())),
            1..=ADDRESSES => Ok(found),
            _ => Err(no_address(format!("more than {ADDRESSES} addresses"))),
        }
    }
}

/// One bad address refuses all.
fn check(target: &Target, addresses: &[SocketAddr]) -> Result<(), Denied> {
    let all: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
    let own = || all.iter().find(|address| is_own(**address)).map(|address| (*address, "this machine's own"));
    match address::first_forbidden(&all).or_else(own) {
        None => Ok(()),
        Some((address, kind)) => Err(Denied::Forbidden { target: target.clone(), address, kind }),
    }
}

/// Whether a public address is one of this machine, whose ports may be open to itself alone. A socket that would send there
/// sends from there; none is sent.
fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let local = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    local.is_ok_and(|local| local.ip() == address)
}

async fn connect(target: &Target, addresses: &[SocketAddr]) -> Result<(TcpStream, IpAddr), Denied> {
    let mut why = String::new();
    let tried = timeout(CONNECT, async {
        for address in addresses {
            match timeout(CONNECT_ONE, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Some((stream, address.ip())),
                Ok(Err(error)) => why = format!("{}: {error}", address.ip()),
                Err(_) => why = format!("{}: no answer within {} s", address.ip(), CONNECT_ONE.as_secs()),
            }
        }
        None
    });
    match tried.await.ok().flatten() {
        Some((stream, address)) => {
            let _ = stream.set_nodelay(true);
            Ok((stream, address))
        }
        None => Err(Denied::Unreachable { target: target.clone(), why }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(addresses: &[&str]) -> Result<(), Denied> {
        let target = Target::parse("x.example:443").expect("a target");
        let all: Vec<SocketAddr> =
            addresses.iter().map(|ip| SocketAddr::new(ip.parse().expect("an address"), 443)).collect();
        check(&target, &all)
    }

    #[test]
    fn one_bad_address_of_an_answer_refuses_all_and_is_named() {
        assert_eq!(checked(&["1.1.1.1", "2606:4700::1111"]), Ok(()));
        let refused = checked(&["1.1.1.1", "169.254.169.254"]).expect_err("refused").to_string();
        assert!(refused.contains("169.254.169.254") && refused.contains("link-local"), "{refused}");
    }

    #[test]
    fn this_machine_knows_its_own_addresses() {
        assert!(is_own(Ipv4Addr::LOCALHOST.into()));
        assert!(!is_own([192, 0, 2, 1].into()));
    }
}
