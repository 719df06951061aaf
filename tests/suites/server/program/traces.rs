//! Traces of requests, as a collector gets them.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use smartedit_proto::v1::smart_edit_service_client::SmartEditServiceClient;
use smartedit_tests::golden::converted;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::serve::Served;
use super::text;
use crate::running::message;

/// A collector that keeps every span it gets.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().unwrap().extend(spans);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_a_part_of_its_callers_trace() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let collector = Collector::default();
    let serving = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
    let serving = tokio::spawn(serving.serve_with_incoming(TcpIncoming::from(listener)));

    let endpoint = format!("telemetry.otlp_endpoint={endpoint:?}");
    let served = Served::with(&["--model", text(&converted().smartedit()), "--set", &endpoint]);
    served.ready().await;
    let address = format!("http://{}", served.address());
    let mut client = SmartEditServiceClient::connect(address).await.unwrap();
    let mut request = Request::new(message(1));
    request.metadata_mut().insert("traceparent", format!("00-{TRACE}-{CALLER}-01").parse().unwrap());
    client.edit(request).await.unwrap();
    drop(client);
    served.terminate();
    let (code, log) = served.ended();
    assert_eq!(code, Some(0), "{log:#?}");
    let finished = log.iter().find(|line| line.contains("edit finished")).unwrap();
    assert!(finished.contains(TRACE), "{finished}");

    serving.abort();
    let found = collector.0.lock().unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert!(found.iter().all(|span| hex(&span.trace_id) == TRACE || span.name == "load"), "{found:#?}");
    let edit = found.iter().find(|span| span.name == "edit").expect("the edit is traced");
    assert_eq!(hex(&edit.parent_span_id), CALLER);
    let stages: Vec<_> = found.iter().filter(|span| span.parent_span_id == edit.span_id).collect();
    assert!(stages.len() >= 6 && stages.iter().all(|span| span.name == "stage"), "{stages:#?}");
}
