//! Ports on which nobody listens, and which nobody else is given meanwhile.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// A port of loopback that refuses connections for as long as this is kept.
pub struct Kept {
    socket: TcpSocket,
    address: SocketAddr,
}

impl Kept {
    /// One that is free.
    pub fn free() -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// One that its listener has just given up. Connections that it accepted may still be open.
    pub fn at(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option of sockets");
        socket.bind(address).expect("the port is free");
        let address = socket.local_addr().expect("its address");
        Self { socket, address }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes connections from now on.
    pub fn listen(self) -> TcpListener {
        self.socket.listen(1024).expect("it listens")
    }
}
