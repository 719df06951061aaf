//! A typed asynchronous client of the SmartEdit server.
//!
//! ```no_run
//! use smartedit_client::{Client, EditRequest};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("127.0.0.1:50051").await?;
//! let mut request = EditRequest::new(std::fs::read("cats.png")?, "Change the left cat to a fox");
//! request.options.seed = Some(7);
//! let edited = client.edit(request).await?;
//! std::fs::write("fox.png", &edited.image)?;
//! # Ok(())
//! # }
//! ```

mod admin;
mod client;
mod compare;
mod deployment;
mod error;
mod event;
mod options;
mod request;
mod retry;
mod stream;

pub use admin::{LoadAdapterRequest, LoadRequest, OtherVersions, Reloaded};
pub use client::{Builder, Client};
pub use compare::{
    CompareEntry, CompareEvent, CompareFailure, CompareMemory, CompareRequest, Compared, Difference,
    LatentDifference, PixelDifference,
};
pub use deployment::{
    Adapter, DeployedStage, Deployment, DeploymentState, EditDefaults, EditLimits, Pipeline,
    UnavailablePlacement,
};
pub use error::{Error, FieldViolation, Rejection, Result};
pub use event::{Edited, Event, Preview, Stage, StageTiming, Timings};
pub use options::{
    AlphaMode, EditOptions, ExifOrientation, ImageTokens, NoiseSource, OutputFormat, Priority, Replay,
    Resize, Scheduler, Tensor,
};
pub use request::EditRequest;
pub use retry::RetryPolicy;
pub use stream::{CompareStream, EditStream};
/// The code of a [`Rejection`].
pub use tonic::Code;
#[cfg(feature = "tls")]
pub use tonic::transport::{Certificate, ClientTlsConfig, Identity};
