//! The deployments and routes, in the form of OpenAI's models.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde::Serialize;

use super::Shared;
use super::error::Refused;
use crate::security::Access;
use crate::status::status;

/// A list of models.
#[derive(Serialize)]
pub(super) struct Models {
    object: &'static str,
    data: Vec<Model>,
}

/// A deployment or a route as a model.
#[derive(Serialize)]
pub(super) struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

impl Model {
    fn of(name: &str) -> Self {
        // When a model was made is not known; clients want a number.
        Self { id: name.to_owned(), object: "model", created: 0, owned_by: "smartedit" }
    }
}

/// `GET /v1/models`: every deployment that the caller may use, and every route after them.
pub(super) async fn list(State(shared): State<Shared>, Extension(access): Extension<Access>) -> Json<Models> {
    let deployments = shared.service.visible(&access);
    let routes = shared.service.visible_routes(&access);
    let names = deployments.iter().map(|deployment| deployment.name());
    let names = names.chain(routes.iter().map(|route| &**route.name()));
    Json(Models { object: "list", data: names.map(Model::of).collect() })
}

/// `GET /v1/models/NAME`: one of them.
pub(super) async fn describe(
    State(shared): State<Shared>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<Json<Model>, Refused> {
    shared.service.find(&name, &access).map_err(|failure| status(&failure, None))?;
    Ok(Json(Model::of(&name)))
}
