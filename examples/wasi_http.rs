//! A server whose requests are handled by a component (`wasi:http`), profiled in the time that passes, so that requests that
//! wait are seen waiting: `cargo run --bin wasi_http [OUT.svg]`.
//!
//! Each request runs in a store of its own that has the request's path for a label.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::net::SocketAddr;

use flamewalk::profile::Metadata;
use flamewalk::{Event, Guest, Options, Profiler};
use flamewalk_flamegraphs::{hottest, svg};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{
    Error as WasiError, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

type Failure = Box<dyn Error + Send + Sync>;

/// How many requests of each path are sent.
const REQUESTS: usize = 100;
const PATHS: [&str; 2] = ["/search", "/render"];

/// What WASI keeps for one request.
struct Request {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    hooks: NoRequests,
}

/// The handler has nobody to ask.
struct NoRequests;

type Response = (hyper::Response<WasiBody>, Box<dyn Future<Output = Result<(), WasiError>> + Send>);

impl WasiHttpHooks for NoRequests {
    fn send_request(
        &mut self,
        _: hyper::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), WasiError>> + Send>,
    ) -> Box<dyn Future<Output = Result<Response, WasiError>> + Send> {
        Box::new(async { Err(WasiError::HttpRequestDenied) })
    }
}

impl WasiView for Request {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Request {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

/// What the handlers of all requests share.
struct Server {
    profiler: Profiler,
    handler: ProxyPre<Request>,
}

impl Server {
    async fn handle(
        &self,
        request: hyper::Request<Incoming>,
    ) -> Result<hyper::Response<HyperOutgoingBody>, Failure> {
        let path = request.uri().path().to_owned();
        let state = Request {
            wasi: WasiCtx::builder().build(),
            http: WasiHttpCtx::new(),
            table: ResourceTable::new(),
            hooks: NoRequests,
        };
        let mut store = Store::new(self.handler.engine(), state);
        // All that profiling adds to a request.
        self.profiler.attach(&mut store)?.set([("path", path)].into_iter().collect());

        let (sender, response) = tokio::sync::oneshot::channel();
        let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
        let outparam = store.data_mut().http().new_response_outparam(sender)?;
        let proxy = self.handler.instantiate_async(&mut store).await?;
        proxy.wasi_http_incoming_handler().call_handle(&mut store, request, outparam).await?;
        Ok(response.await??)
    }

    async fn serve(&self, connection: TcpStream) -> Result<(), Failure> {
        let service = service_fn(|request| self.handle(request));
        Ok(http1::Builder::new().serve_connection(TokioIo::new(connection), service).await?)
    }
}

/// Asks for one path again and again.
async fn client(address: SocketAddr, path: &'static str) -> Result<(), Failure> {
    for _ in 0..REQUESTS {
        let mut connection = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut response = String::new();
        connection.read_to_string(&mut response).await?;
        if !response.starts_with("HTTP/1.1 200 ") {
            return Err(format!("{path} was answered with {response:?}").into());
        }
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let output = std::env::args().nth(1).unwrap_or_else(|| "wasi_http.svg".to_owned());
    let engine = Engine::default();
    let binary = flamewalk_guests::http_handler()?;
    let component = Component::new(&engine, &binary)?;
    let mut linker = Linker::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    let handler = ProxyPre::new(linker.instantiate_pre(&component)?)?;

    let mut options = Options::default();
    options.event = Event::Wall;
    options.suspended = true;
    let profiler = Profiler::new(options)?;
    profiler.register_component(&component, Guest::named("handler").binary(binary))?;
    let server: &'static Server = Box::leak(Box::new(Server { profiler, handler }));

    server.profiler.start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(async move {
                    if let Err(error) = server.serve(connection).await {
                        eprintln!("{error}");
                    }
                });
            }
        });
        let clients = PATHS.map(|path| tokio::spawn(client(address, path)));
        for client in clients {
            client.await??;
        }
        Ok::<(), Failure>(())
    })?;
    let profile = server.profiler.stop(Metadata::default())?;

    let mut times = BTreeMap::<&str, u64>::new();
    for sample in profile.samples() {
        let path = profile.labels(sample.origin.labels).get("path").unwrap_or("none");
        *times.entry(path).or_default() += sample.tally.weight;
    }
    for (path, time) in times {
        println!("{path}: {:.1} ms", time as f64 / 1e6);
    }
    print!("{}", hottest(&profile, 10));
    svg(&profile, &Default::default(), File::create(&output)?)?;
    println!("wrote {output}");
    Ok(())
}
