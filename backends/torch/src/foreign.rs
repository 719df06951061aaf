//! What our own operators in C++ give back.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

/// The tensor that `make` has made for nobody else, or the error whose message it wrote. It is given where to, and how
/// much of that it may write: without a tensor, it writes a text that ends with a zero.
pub(crate) fn made(make: impl FnOnce(*mut c_char, usize) -> *mut C_tensor) -> Result<Tensor, TchError> {
    let mut message = [0; 512];
    let tensor = make(message.as_mut_ptr(), message.len());
    if tensor.is_null() {
        // SAFETY: where there is no tensor, the message has been written and ends within the array.
        let message = unsafe { CStr::from_ptr(message.as_ptr()) };
        return Err(TchError::Torch(message.to_string_lossy().into_owned()));
    }
    // SAFETY: the tensor has just been made for whoever called, and for nobody else.
    Ok(unsafe { Tensor::from_ptr(tensor) })
}
