//! A server that keeps what it is sent, and answers as it is told to.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Method, path with what follows it, and version.
    pub(crate) line: String,
    /// In lower case, in the order in which they came.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values =
            self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is there twice");
        value
    }
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Sends these bytes and hangs up.
    Bytes(Vec<u8>),
    /// Says nothing until the client goes away.
    Silence,
}

/// An answer with a status, a content type and a body.
pub(crate) fn answer(status: &str, headers: &str, body: &[u8]) -> Answer {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    Answer::Bytes([head.as_bytes(), body].concat())
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    answers: VecDeque<Answer>,
}

/// Listens on a thread that ends with the process.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Server {
    /// Gives `answers` one after the other, and the last of them from then on.
    pub(crate) fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { answers: answers.into_iter().collect(), ..State::default() };
        let server = Self { address, shared: Arc::new((Mutex::new(state), Condvar::new())) };
        let in_thread = server.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                in_thread.serve(connection.unwrap());
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has come, once it is so many requests.
    pub(crate) fn requests(&self, count: usize) -> Vec<Request> {
        let (state, changed) = &*self.shared;
        let state = state.lock().unwrap();
        changed.wait_while(state, |state| state.requests.len() < count).unwrap().requests.clone()
    }

    fn serve(&self, mut connection: TcpStream) {
        let mut lines = BufReader::new(connection.try_clone().unwrap());
        let mut line = || {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let first = line();
        if first.is_empty() {
            return;
        }
        let mut headers = Vec::new();
        loop {
            let header = line();
            let Some((name, value)) = header.split_once(": ") else { break };
            headers.push((name.to_lowercase(), value.to_owned()));
        }
        let mut request = Request { line: first, headers, body: Vec::new() };
        // What has no length is sent in pieces, which is not what these servers are sent.
        let length = request.header("content-length").unwrap().parse().unwrap();
        request.body.resize(length, 0);
        lines.read_exact(&mut request.body).unwrap();
        let answer = {
            let (state, changed) = &*self.shared;
            let mut state = state.lock().unwrap();
            state.requests.push(request);
            changed.notify_all();
            if state.answers.len() > 1 { state.answers.pop_front() } else { state.answers.front().cloned() }
        };
        match answer.unwrap() {
            // A client that has lost patience is gone.
            Answer::Bytes(bytes) => _ = connection.write_all(&bytes),
            Answer::Silence => _ = lines.read(&mut [0]),
        }
    }
}
