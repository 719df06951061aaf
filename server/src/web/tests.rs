//! HTTP over models that follow scripts.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::config::{Limits, RouteConfig};
use crate::deployment::{Deployments, Loader};
use crate::server::tests::{Shelf, config};
use crate::work::Editor;
use crate::work::testing::{Scripted, picture, steps};

/// What is served over HTTP, without a port.
struct Site {
    router: Router,
    service: Service,
}

/// What a request is answered with.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Makes sure that it is an error, and gives its code and the field at fault.
    #[track_caller]
    fn refused(&self, status: u16) -> (String, String) {
        assert_eq!(self.status, status, "{:?}", self.body);
        let json = self.json();
        let text = |name: &str| json["error"][name].as_str().unwrap_or_default().to_owned();
        assert!(!text("message").is_empty() && !text("type").is_empty(), "{json}");
        (text("code"), text("param"))
    }
}

impl Site {
    fn new(editor: Option<Arc<dyn Editor>>, config: &Config) -> Self {
        let loader: Arc<dyn Loader> = Arc::new(Shelf(editor));
        let service = Service::new(config.clone(), Deployments::start(config, &loader));
        let limits = &config.limits;
        let metrics = service.metrics().clone();
        let admission = AdmissionLayer::new(limits.max_concurrent, limits.max_message_bytes, metrics);
        let grpc = tower::service_fn(async |_: axum::extract::Request| Ok(StatusCode::IM_A_TEAPOT));
        let access = AccessLayer::new(Security::new(config).unwrap(), service.metrics().clone());
        Self { router: router(config, service.clone(), access, admission, grpc), service }
    }

    async fn ready(editor: Arc<dyn Editor>, config: &Config) -> Self {
        let site = Self::new(Some(editor), config);
        site.service.deployments().get("").unwrap().loaded().await.unwrap();
        site
    }

    async fn ask(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn edit(&self, fields: &[(&str, &[u8])]) -> Answer {
        self.ask(form(fields)).await
    }
}

/// A request for an edit.
fn form(fields: &[(&str, &[u8])]) -> Request<Body> {
    let mut body = Vec::new();
    for (name, content) in fields {
        body.extend_from_slice(b"--x\r\nContent-Disposition: form-data; name=\"");
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(b"\"\r\n\r\n");
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--x--\r\n");
    let request = Request::post("/v1/images/edits").header("content-type", "multipart/form-data; boundary=x");
    request.body(body.into()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn alive_and_ready_are_two_questions() {
    let (editor, leash) = Scripted::on_leash(vec![steps(1)]);
    let limits = Limits { max_queue: 0, ..Limits::default() };
    let site = Site::ready(editor, &Config { limits, ..config() }).await;
    assert_eq!(site.get("/readyz").await.status, 200);

    // A full queue is neither dead nor unready.
    let image = picture();
    let first = form(&[("image", &image), ("prompt", b"Make it blue")]);
    let working = tokio::spawn(site.router.clone().oneshot(first));
    leash.wait().await;
    let refused = site.edit(&[("image", &image), ("prompt", b"Make it blue")]).await;
    assert_eq!(refused.refused(429).0, "queue_full");
    assert!(refused.headers.contains_key("retry-after") && refused.headers.contains_key("retry-after-ms"));
    assert_eq!(site.get("/readyz").await.status, 200);
    drop(leash);
    assert_eq!(working.await.unwrap().unwrap().status(), 200);

    site.service.refuse();
    let unready = site.get("/readyz").await;
    assert_eq!((unready.status.as_u16(), unready.text()), (503, "the server is shutting down\n"));
    assert_eq!(site.get("/healthz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_deployment_that_failed_is_not_ready() {
    let site = Site::new(None, &config());
    site.service.deployments().get("").unwrap().loaded().await.unwrap_err();
    let unready = site.get("/readyz").await;
    assert_eq!(unready.status, 503);
    assert!(unready.text().contains("default") && !unready.text().contains("secret"), "{}", unready.text());
    assert_eq!(site.get("/healthz").await.status, 200);
    let image = picture();
    assert_eq!(site.edit(&[("image", &image), ("prompt", b"x")]).await.refused(503).0, "deployment_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_in_openais_form() {
    let site = Site::ready(Scripted::of(vec![steps(2)]), &config()).await;
    let image = picture();
    let fields: [(&str, &[u8]); 5] =
        [("image", &image), ("prompt", b"Make it blue"), ("model", b"default"), ("n", b"2"), ("seed", b"7")];
    let answer = site.edit(&fields).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    assert_eq!(answer.headers["x-request-id"].len(), 16);
    let json = answer.json();
    assert_eq!((&json["size"], &json["output_format"]), (&"16x8".into(), &"png".into()));
    let seeds: Vec<_> = json["data"].as_array().unwrap().iter().map(|image| &image["seed"]).collect();
    assert_eq!(seeds, [7, 8]);
    let metrics = site.get("/metrics").await;
    for sample in [
        r#"smartedit_edits_total{deployment="default",outcome="OK"} 2"#,
        r#"http_server_request_duration_seconds_count{http_request_method="POST",http_route="/v1/images/edits",http_response_status_code="200"} 1"#,
    ] {
        assert!(metrics.text().contains(sample), "no {sample} in {}", metrics.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_served_say_why() {
    let limits = Limits { max_message_bytes: 1 << 20, max_image_bytes: 1 << 20, ..Limits::default() };
    let site = Site::ready(Scripted::of(vec![steps(1)]), &Config { limits, ..config() }).await;
    let image = picture();
    let edit = async |name: &str, value: &[u8]| {
        site.edit(&[("image", &image), ("prompt", b"Make it blue"), (name, value)]).await
    };
    assert_eq!(edit("model", b"nowhere").await.refused(404), ("model_not_found".into(), "model".into()));
    assert_eq!(edit("size", b"7x8").await.refused(400), ("invalid_request".into(), "size".into()));
    assert_eq!(edit("steps", b"0").await.refused(400).1, "steps");
    assert_eq!(edit("image[]", &image).await.refused(400).1, "image");
    assert_eq!(edit("prompt", b"x").await.refused(400).1, "prompt");
    let latin: [(&str, &[u8]); 2] = [("image", &image), ("prompt", b"\xff")];
    assert_eq!(site.edit(&latin).await.refused(400).1, "prompt");
    let many: Vec<(&str, &[u8])> = vec![("user", b"x"); 100];
    site.edit(&many).await.refused(400);
    assert_eq!(site.edit(&[("image", b"x"), ("prompt", b"x")]).await.refused(400).1, "image");
    assert_eq!(site.edit(&[("image", &image)]).await.refused(400).1, "prompt");
    assert_eq!(site.edit(&[]).await.refused(400).1, "image");
    edit("image", &vec![0; 2 << 20]).await.refused(413);

    let json = Request::post("/v1/images/edits").header("content-type", "application/json");
    site.ask(json.body("{}".into()).unwrap()).await.refused(400);
    let torn = Request::post("/v1/images/edits").header("content-type", "multipart/form-data; boundary=x");
    site.ask(torn.body("--x\r\nContent-Disp".into()).unwrap()).await.refused(400);
    assert_eq!(site.get("/v1/images/edits").await.status, 405);
    assert_eq!(site.get("/nowhere").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_being_received_are_bounded() {
    let limits = Limits { max_concurrent: 1, ..Limits::default() };
    let (editor, leash) = Scripted::on_leash(vec![steps(1)]);
    let site = Site::ready(editor, &Config { limits, ..config() }).await;
    let image = picture();
    let first = tokio::spawn(site.router.clone().oneshot(form(&[("image", &image), ("prompt", b"x")])));
    leash.wait().await;
    assert_eq!(site.edit(&[("image", &image), ("prompt", b"x")]).await.refused(429).0, "overloaded");
    drop(leash);
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_hangs_up_stops_its_edits() {
    let (editor, leash) = Scripted::on_leash(vec![steps(100)]);
    let site = Site::ready(editor, &config()).await;
    let image = picture();
    let fields: [(&str, &[u8]); 3] = [("image", &image), ("prompt", b"x"), ("n", b"3")];
    let call = tokio::spawn(site.router.clone().oneshot(form(&fields)));
    leash.wait().await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    leash.go();
    site.service.requests().idle().await;
    assert!(leash.is_quiet().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_are_models() {
    let site = Site::ready(Scripted::of(vec![steps(1)]), &config()).await;
    let list = site.get("/v1/models").await.json();
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&"list".into(), &"default".into()));
    assert_eq!(site.get("/v1/models/default").await.json()["object"], "model");
    assert_eq!(site.get("/v1/models/nothing").await.refused(404).0, "model_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_a_model_and_gives_a_request_to_one_deployment() {
    let mut config = config();
    let deployment = config.deployments["default"].clone();
    config.deployments = ["a", "b"].map(|name| (name.to_owned(), deployment.clone())).into();
    let weights = ["a", "b"].map(|name| (name.to_owned(), 1.0)).into();
    config.routes = [("both".to_owned(), RouteConfig { weights, ..RouteConfig::default() })].into();
    let site = Site::new(Some(Scripted::of(vec![steps(1)])), &config);
    for name in ["a", "b"] {
        site.service.deployments().get(name).unwrap().loaded().await.unwrap();
    }
    let names = site.get("/v1/models").await.json();
    let names: Vec<_> = names["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(names, ["a", "b", "both"]);
    assert_eq!(site.get("/v1/models/both").await.json()["id"], "both");

    let image = picture();
    let fields: [(&str, &[u8]); 4] =
        [("image", &image), ("prompt", b"Make it blue"), ("model", b"both"), ("n", b"10")];
    let answer = site.edit(&fields).await;
    let name = answer.headers["smartedit-deployment"].to_str().unwrap();
    let sample = format!(r#"smartedit_edits_total{{deployment="{name}",outcome="OK"}} 10"#);
    let metrics = site.get("/metrics").await;
    assert!(metrics.text().contains(&sample), "no {sample} in {}", metrics.text());

    let mut chosen = form(&fields);
    chosen.headers_mut().insert("smartedit-deployment", "a".parse().unwrap());
    assert_eq!(site.ask(chosen).await.refused(400).1, "smartedit-deployment");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_are_let_in_by_name() {
    let preflight = |origin: &str| {
        Request::options("/smartedit.v1.SmartEditService/Edit")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,x-grpc-web")
            .body(Body::empty())
            .unwrap()
    };
    let allowed = |answer: &Answer| answer.headers.get("access-control-allow-origin").cloned();
    let (mine, others) = ("https://mine.example", "https://others.example");
    let editor = Scripted::of(vec![steps(1)]);

    let closed = Site::ready(editor.clone(), &config()).await;
    assert_eq!(allowed(&closed.ask(preflight(mine)).await), None);

    let mut config = config();
    config.http.cors_origins = vec![mine.to_owned()];
    let open = Site::ready(editor.clone(), &config).await;
    let answer = open.ask(preflight(mine)).await;
    assert_eq!(allowed(&answer).unwrap(), mine);
    assert_eq!(answer.headers["access-control-allow-headers"], "content-type,x-grpc-web");
    assert_eq!(allowed(&open.ask(preflight(others)).await), None);

    config.http.cors_origins = vec!["*".to_owned()];
    let anyone = Site::ready(editor, &config).await;
    assert_eq!(allowed(&anyone.ask(preflight(others)).await).unwrap(), "*");
    let call = Request::post("/smartedit.v1.SmartEditService/Edit").header("origin", others);
    let answer = anyone.ask(call.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::IM_A_TEAPOT, "calls reach the gRPC services");
    let exposed = answer.headers["access-control-expose-headers"].to_str().unwrap();
    assert!(exposed.contains("grpc-status") && exposed.contains("x-request-id"), "{exposed}");
}
