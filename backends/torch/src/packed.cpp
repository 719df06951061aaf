// Operators of libtorch that have no wrapper in tch: they are registered with its dispatcher, and in no header.

#include "guarded.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace {

std::optional<c10::OperatorHandle> find(const char *name) {
  return c10::Dispatcher::singleton().findSchema({name, ""});
}

at::Tensor convolution(const at::Tensor &x, const at::Tensor &weight, const at::Tensor *bias,
                       const int64_t *padding, const int64_t *stride) {
  static const auto op = find("mkldnn::_convolution_pointwise");
  TORCH_CHECK(op.has_value(), "this libtorch has no oneDNN");
  torch::jit::Stack stack{x,
                          weight,
                          bias == nullptr ? c10::IValue() : c10::IValue(*bias),
                          std::vector<int64_t>{padding[0], padding[1]},
                          std::vector<int64_t>{stride[0], stride[1]},
                          std::vector<int64_t>{1, 1},
                          int64_t{1},
                          "none",
                          c10::List<std::optional<at::Scalar>>(),
                          c10::IValue()};
  op->callBoxed(stack);
  return stack.at(0).toTensor();
}

} // namespace

extern "C" {

// Whether `smartedit_torch_convolution` can be called.
bool smartedit_torch_has_convolution() noexcept {
  try {
    return find("mkldnn::_convolution_pointwise").has_value();
  } catch (...) {
    return false;
  }
}

// The convolution of `x` with a packed weight as a tensor of its own, or null with the reason in `message`.
at::Tensor *smartedit_torch_convolution(const at::Tensor *x, const at::Tensor *weight,
                                        const at::Tensor *bias, const int64_t *padding,
                                        const int64_t *stride, char *message,
                                        size_t length) noexcept {
  return guarded(message, length, [=] { return convolution(*x, *weight, bias, padding, stride); });
}
}
