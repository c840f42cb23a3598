// A device that fails like a chip at one launch, once.
#pragma once

#include "device/device.h"
#include "ops/dispatch.h"

namespace ferry {

class FailingDevice final : public ops::Observer {
 public:
  explicit FailingDevice(int launch) : launches_left_(launch) {}  // counted from 0; -1: never
  void before(const ops::OpCall& call) override {
    if (launches_left_-- == 0) throw DeviceError(call.device.name(), 1, "injected", call.op);
  }

 private:
  int launches_left_;
};

}  // namespace ferry
