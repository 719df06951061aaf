//! Traces of requests, as a collector gets them.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use smartedit_proto::v1;
use smartedit_proto::v1::smart_edit_service_client::SmartEditServiceClient;
use smartedit_tests::golden::converted;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::serve::Served;
use super::text;
use crate::running::message;

/// A collector that keeps every span it gets, with the name of the service.
struct Collector {
    spans: Spans,
    endpoint: String,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
}

#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<(String, Span)>>>);

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let spans = Spans::default();
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(spans.clone()));
        let serving = tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        Self { spans, endpoint, serving }
    }

    /// The spans of the services, once they have ended.
    fn end<const N: usize>(self, names: [&str; N]) -> [Vec<Span>; N] {
        self.serving.abort();
        let found = self.spans.0.lock().unwrap();
        names.map(|name| {
            let of_service = found.iter().filter(|(service, _)| service == name);
            of_service.map(|(_, span)| span.clone()).collect()
        })
    }
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let service = service(resource.resource.unwrap_or_default());
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().unwrap().extend(spans.map(|span| (service.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn service(resource: Resource) -> String {
    let name = resource.attributes.into_iter().find(|attribute| attribute.key == "service.name");
    match name.and_then(|name| name.value?.value) {
        Some(Value::StringValue(name)) => name,
        other => panic!("a service without a name: {other:?}"),
    }
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An edit in a trace.
fn traced(steps: u32, trace: &str) -> Request<v1::EditRequest> {
    let mut request = Request::new(message(steps));
    request.metadata_mut().insert("traceparent", format!("00-{trace}-{CALLER}-01").parse().unwrap());
    request
}

/// Waits until a server has ended; what it wrote.
fn end(served: Served) -> Vec<String> {
    served.terminate();
    let (code, log) = served.ended();
    assert_eq!(code, Some(0), "{log:#?}");
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_a_part_of_its_callers_trace() {
    let collector = Collector::start().await;
    let endpoint = format!("telemetry.otlp_endpoint={:?}", collector.endpoint);
    let served = Served::with(&["--model", text(&converted().smartedit()), "--set", &endpoint]);
    served.ready().await;
    let address = format!("http://{}", served.address());
    let mut client = SmartEditServiceClient::connect(address).await.unwrap();
    client.edit(traced(1, TRACE)).await.unwrap();
    drop(client);
    let log = end(served);
    let finished = log.iter().find(|line| line.contains("edit finished")).unwrap();
    assert!(finished.contains(TRACE), "{finished}");

    let [found] = collector.end(["smartedit"]);
    assert!(found.iter().all(|span| hex(&span.trace_id) == TRACE || span.name == "load"), "{found:#?}");
    let edit = found.iter().find(|span| span.name == "edit").expect("the edit is traced");
    assert_eq!(hex(&edit.parent_span_id), CALLER);
    let stages: Vec<_> = found.iter().filter(|span| span.parent_span_id == edit.span_id).collect();
    assert!(stages.len() >= 6 && stages.iter().all(|span| span.name == "stage"), "{stages:#?}");
}

/// Edits at the same time on two servers: whatever the second computes is a part of a stage of the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_on_another_server() {
    let collector = Collector::start().await;
    let sent = |name: &str| {
        format!("[telemetry]\notlp_endpoint = {:?}\nservice_name = {name:?}\n", collector.endpoint)
    };
    let deployment =
        format!("[deployments.default]\nmodel = {:?}\nmax_batch = 4\n", text(&converted().smartedit()));
    let back = Served::configured(&format!("{}{deployment}", sent("back")));
    back.ready().await;
    let remote = ["connector", "denoiser"].map(|stage| {
        format!(
            "[deployments.default.stages.{stage}]\nengine = \"remote\"\n\
             remote = {{ url = \"http://{}\", model = \"default/{stage}\" }}\n",
            back.address()
        )
    });
    // Only what callers ask for is to be traced.
    let front = format!("{}{deployment}warm_up = false\n{}", sent("front"), remote.concat());
    let front = Served::configured(&front);
    front.ready().await;
    let address = format!("http://{}", front.address());
    let client = SmartEditServiceClient::connect(address).await.unwrap();
    let traces = ["1", "2", "3"].map(|digit| digit.repeat(32));
    let edits = traces.each_ref().map(|trace| {
        let (mut client, request) = (client.clone(), traced(20, trace));
        tokio::spawn(async move { client.edit(request).await })
    });
    for edit in edits {
        edit.await.unwrap().unwrap();
    }
    drop(client);
    end(front);
    let log = end(back);
    let finished: Vec<_> = log.iter().filter(|line| line.contains("inference finished")).collect();
    assert!(finished.iter().all(|line| traces.iter().any(|trace| line.contains(trace))), "{finished:#?}");

    let [front, back] = collector.end(["front", "back"]);
    let runs: Vec<_> = back.iter().filter(|span| span.name == "stage_run").collect();
    assert_eq!(runs.len(), finished.len());
    for run in &runs {
        let parent = front.iter().find(|span| span.span_id == run.parent_span_id);
        let parent = parent.unwrap_or_else(|| panic!("nobody asked for {run:#?}"));
        assert_eq!((parent.name.as_str(), &parent.trace_id), ("stage", &run.trace_id));
        let computed: Vec<_> = back.iter().filter(|span| span.parent_span_id == run.span_id).collect();
        assert!(matches!(computed[..], [stage] if stage.name == "stage"), "{computed:#?}");
    }
    for trace in &traces {
        assert!(runs.iter().any(|run| hex(&run.trace_id) == *trace), "{trace}: {runs:#?}");
    }
}
