//! The deployments, in the form of OpenAI's models.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde::Serialize;

use super::Shared;
use super::error::Refused;
use crate::deployment::Deployment;
use crate::security::Access;
use crate::status::status;

/// A list of models.
#[derive(Serialize)]
pub(super) struct Models {
    object: &'static str,
    data: Vec<Model>,
}

/// A deployment as a model.
#[derive(Serialize)]
pub(super) struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

impl Model {
    fn of(deployment: &Deployment) -> Self {
        // When a model was made is not known; clients want a number.
        Self { id: deployment.name().to_owned(), object: "model", created: 0, owned_by: "smartedit" }
    }
}

/// `GET /v1/models`: every deployment that the caller may use.
pub(super) async fn list(State(shared): State<Shared>, Extension(access): Extension<Access>) -> Json<Models> {
    let deployments = shared.service.visible(&access);
    let data = deployments.iter().map(|deployment| Model::of(deployment)).collect();
    Json(Models { object: "list", data })
}

/// `GET /v1/models/NAME`: one deployment.
pub(super) async fn describe(
    State(shared): State<Shared>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
) -> Result<Json<Model>, Refused> {
    let found = shared.service.deployment(&name, &access);
    let deployment = found.map_err(|failure| status(&failure, None))?;
    Ok(Json(Model::of(&deployment)))
}
