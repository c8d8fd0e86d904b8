//! A server whose guests can be profiled at any time, from a browser or by `go tool pprof`, while it serves:
//! `cargo run --bin on_demand [PORT]`, and then for instance
//!
//! ```text
//! go tool pprof -top -seconds 5 http://127.0.0.1:8080
//! curl 'http://127.0.0.1:8080/debug/pprof/flamegraph?seconds=5&label=tenant=acme' -o acme.svg
//! ```
//!
//! Nothing is sampled until somebody asks. The profiles are at `/debug/pprof/` of the server itself, since it listens on
//! this machine only; a server that others can reach has them on a port of their own (`flamewalk_serve::Server`). Tools
//! of the same user find the process by its number, at a Unix socket.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;

use flamewalk::{Guest, Options, Profiler};
use flamewalk_serve::{OnDemand, Server};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wasmtime::{Engine, Linker, Module, Store};

/// What every tenant runs: parses a request, and works on it.
const GUEST: &str = r#"(module $handler
  (func $work (param $turns i32)
    (loop (br_if 0 (local.tee $turns (i32.sub (local.get $turns) (i32.const 1))))))
  (func $parse (call $work (i32.const 20000)))
  (func $respond (param $turns i32) (call $work (local.get $turns)))
  (func $handle (export "handle") (param $turns i32)
    (call $parse)
    (call $respond (local.get $turns))))"#;

/// The tenants, and the work of each of their requests.
const TENANTS: [(&str, i32); 2] = [("acme", 600_000), ("globex", 300_000)];

type Failure = Box<dyn Error + Send + Sync>;

/// What the handlers of all requests share.
struct App {
    profiler: Arc<Profiler>,
    on_demand: OnDemand,
    module: Module,
}

impl App {
    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        // All that it takes to have profiles on demand.
        if request.uri().path().starts_with("/debug/pprof/") {
            return Ok(self.on_demand.respond(request).await.map(Full::from));
        }
        let path = request.uri().path().to_owned();
        let tenant = TENANTS.into_iter().find(|(name, _)| path.strip_prefix('/') == Some(name));
        let response = match tenant {
            // A guest is busy for as long as it runs.
            Some((tenant, turns)) => match tokio::task::spawn_blocking(move || self.run(tenant, turns)).await
            {
                Ok(Ok(())) => (StatusCode::OK, "done\n".to_owned()),
                Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            None => (StatusCode::NOT_FOUND, "there is no such tenant\n".to_owned()),
        };
        let mut answer = Response::new(Full::from(response.1));
        *answer.status_mut() = response.0;
        Ok(answer)
    }

    fn run(&self, tenant: &str, turns: i32) -> Result<(), Failure> {
        let mut store = Store::new(self.module.engine(), ());
        self.profiler.attach(&mut store)?.set([("tenant", tenant)].into_iter().collect());
        let instance = Linker::new(self.module.engine()).instantiate(&mut store, &self.module)?;
        instance.get_typed_func::<i32, ()>(&mut store, "handle")?.call(&mut store, turns)?;
        Ok(())
    }

    async fn serve(self: Arc<Self>, connection: TcpStream) {
        let respond = service_fn(move |request| Arc::clone(&self).respond(request));
        if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(connection), respond).await {
            eprintln!("a connection has failed: {error}");
        }
    }
}

/// Sends requests of one tenant, one after the other.
async fn client(address: std::net::SocketAddr, tenant: &'static str) -> Result<(), Failure> {
    loop {
        let mut connection = TcpStream::connect(address).await?;
        let request = format!("GET /{tenant} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut response = String::new();
        connection.read_to_string(&mut response).await?;
        if !response.starts_with("HTTP/1.1 200 ") {
            return Err(response.into());
        }
    }
}

fn main() -> Result<(), Failure> {
    let port = std::env::args().nth(1).map_or(Ok(8080), |port| port.parse())?;
    let engine = Engine::default();
    let binary = wat::parse_str(GUEST)?;
    let module = Module::new(&engine, &binary)?;
    let profiler = Arc::new(Profiler::new(Options::default())?);
    profiler.register_module(&module, Guest::named("handler").binary(binary))?;

    let mut options = flamewalk_serve::Options::default();
    options.guest = Some("handler".to_owned());
    let on_demand = OnDemand::new(Arc::clone(&profiler), options);
    let socket = Server::offer(on_demand.clone())?;

    let app = Arc::new(App { profiler, on_demand, module });
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let address = listener.local_addr()?;
        println!("http://{address}/debug/pprof/");
        println!("{}", socket.path().unwrap_or("".as_ref()).display());
        let clients = TENANTS.map(|(tenant, _)| tokio::spawn(client(address, tenant)));
        loop {
            let (connection, _) = listener.accept().await?;
            tokio::spawn(Arc::clone(&app).serve(connection));
            // They have no end but this one.
            if let Some(client) = clients.iter().position(|client| client.is_finished()) {
                return Err(format!("the client of {} has failed", TENANTS[client].0).into());
            }
        }
    })
}
