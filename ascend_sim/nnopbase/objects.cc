#include "nnopbase/objects.h"

#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "nnopbase/numbers.h"
#include "runtime/error.h"
#include "runtime/settings.h"

using namespace ascend_sim;

namespace {

/// Handles that live. They own what they point to through the destroying calls alone, as in C.
struct Lives {
  std::mutex mutex;
  std::unordered_map<const void*, uint64_t> numbers;
  uint64_t last = 0;
};

Lives& lives() {
  static Lives& all = *std::make_unique<Lives>().release();
  return all;
}

template <class T>
T* born(std::unique_ptr<T> object) {
  const std::lock_guard lock(lives().mutex);
  lives().numbers[object.get()] = ++lives().last;
  return object.release();
}

/// Null is fine; a handle that does not live is a breach.
template <class T>
aclnnStatus destroy(const T* handle, const char* call) {
  if (!handle) return 0;
  {
    const std::lock_guard lock(lives().mutex);
    if (lives().numbers.erase(handle) == 0)
      violation(std::string(call) + " destroys what is not there (any more)");
  }
  const std::unique_ptr<const T> owner(handle);
  return 0;
}

int null_pointer(const char* call) { return explain(code::kNullptr, std::string(call)); }

Shape contiguous_strides(const Shape& shape) {
  Shape strides(shape.size());
  int64_t next = 1;
  for (size_t i = shape.size(); i-- > 0; next *= shape[i]) strides[i] = next;
  return strides;
}

bool negative(const Shape& numbers) {
  for (const int64_t n : numbers)
    if (n < 0) return true;
  return false;
}

/// An array that the caller gives back with delete[].
aclnnStatus hand_out(const Shape& shape, int64_t** out, uint64_t* count) {
  if (!out || !count) return null_pointer("there is no place for the answer");
  auto copy = std::make_unique<int64_t[]>(shape.size());
  for (size_t i = 0; i < shape.size(); ++i) copy[i] = shape[i];
  *out = copy.release();
  *count = shape.size();
  return 0;
}

template <class T, class Number>
T* create_array(const Number* values, uint64_t size) {
  if (!values && size > 0) {
    explain(code::kNullptr, "the values of an array");
    return nullptr;
  }
  auto out = std::make_unique<T>();
  out->values.assign(values, values + size);
  return born(std::move(out));
}

template <class T, class Member>
T* create_list(const Member* const* members, uint64_t size) {
  if (!members && size > 0) {
    explain(code::kNullptr, "the members of a list");
    return nullptr;
  }
  auto out = std::make_unique<T>();
  out->members.assign(members, members + size);
  return born(std::move(out));
}

template <class T>
aclnnStatus size_of_array(const T* array, uint64_t* size) {
  if (!array || !size) return null_pointer("an array and a place for its size");
  *size = array->values.size();
  return 0;
}

template <class T>
aclnnStatus size_of_list(const T* list, uint64_t* size) {
  if (!list || !size) return null_pointer("a list and a place for its size");
  *size = list->members.size();
  return 0;
}

}  // namespace

uint64_t ascend_sim::life_of(const void* handle) {
  const std::lock_guard lock(lives().mutex);
  const auto it = lives().numbers.find(handle);
  return it == lives().numbers.end() ? 0 : it->second;
}

extern "C" {

ASCEND_SIM_EXPORT aclnnStatus aclnnInit(const char* /*config_path*/) { return 0; }
ASCEND_SIM_EXPORT aclnnStatus aclnnFinalize() { return 0; }

/// Null if the sizes make no sense. Types and addresses are the ops' to judge.
ASCEND_SIM_EXPORT aclTensor* aclCreateTensor(const int64_t* dims,
                                             uint64_t rank,
                                             aclDataType dtype,
                                             const int64_t* strides,
                                             int64_t offset,
                                             aclFormat format,
                                             const int64_t* storage_dims,
                                             uint64_t storage_rank,
                                             void* data) {
  auto out = std::make_unique<aclTensor>();
  Tensor& t = out->value;
  if ((!dims && rank > 0) || (!storage_dims && storage_rank > 0)) {
    explain(code::kNullptr, "dimensions of a tensor");
    return nullptr;
  }
  t.dtype = dtype;
  t.format = format;
  t.shape.assign(dims, dims + rank);
  t.strides = strides ? Shape(strides, strides + rank) : contiguous_strides(t.shape);
  t.offset = offset;
  t.storage_shape.assign(storage_dims, storage_dims + storage_rank);
  t.data = data;
  if (negative(t.shape) || negative(t.strides) || negative(t.storage_shape) || offset < 0) {
    explain(code::kInvalid, "a negative dimension, stride or offset of a tensor");
    return nullptr;
  }
  return born(std::move(out));
}

ASCEND_SIM_EXPORT aclnnStatus aclDestroyTensor(const aclTensor* t) {
  return destroy(t, "aclDestroyTensor");
}

ASCEND_SIM_EXPORT aclScalar* aclCreateScalar(void* value, aclDataType dtype) {
  auto out = std::make_unique<aclScalar>();
  out->dtype = dtype;
  const bool known = value && with_type(dtype, [&](auto type) {
                       using T = decltype(type);
                       const T x = *static_cast<const T*>(value);
                       out->value = as_double(x);
                       out->integer = std::is_integral_v<T> ? as_int(x) : 0;
                     });
  if (!known) {
    explain(value ? code::kInvalid : code::kNullptr, "the value of a scalar");
    return nullptr;
  }
  return born(std::move(out));
}

ASCEND_SIM_EXPORT aclnnStatus aclDestroyScalar(const aclScalar* s) {
  return destroy(s, "aclDestroyScalar");
}

ASCEND_SIM_EXPORT aclIntArray* aclCreateIntArray(const int64_t* values, uint64_t size) {
  return create_array<aclIntArray>(values, size);
}

ASCEND_SIM_EXPORT aclnnStatus aclDestroyIntArray(const aclIntArray* a) {
  return destroy(a, "aclDestroyIntArray");
}

ASCEND_SIM_EXPORT aclFloatArray* aclCreateFloatArray(const float* values, uint64_t size) {
  return create_array<aclFloatArray>(values, size);
}

ASCEND_SIM_EXPORT aclnnStatus aclDestroyFloatArray(const aclFloatArray* a) {
  return destroy(a, "aclDestroyFloatArray");
}

ASCEND_SIM_EXPORT aclBoolArray* aclCreateBoolArray(const bool* values, uint64_t size) {
  return create_array<aclBoolArray>(values, size);
}

ASCEND_SIM_EXPORT aclnnStatus aclDestroyBoolArray(const aclBoolArray* a) {
  return destroy(a, "aclDestroyBoolArray");
}

ASCEND_SIM_EXPORT aclTensorList* aclCreateTensorList(const aclTensor* const* members,
                                                     uint64_t size) {
  return create_list<aclTensorList>(members, size);
}

/// The tensors in it go with it.
ASCEND_SIM_EXPORT aclnnStatus aclDestroyTensorList(const aclTensorList* list) {
  if (list)
    for (const aclTensor* t : list->members) destroy(t, "aclDestroyTensorList");
  return destroy(list, "aclDestroyTensorList");
}

ASCEND_SIM_EXPORT aclScalarList* aclCreateScalarList(const aclScalar* const* members,
                                                     uint64_t size) {
  return create_list<aclScalarList>(members, size);
}

/// The scalars in it go with it.
ASCEND_SIM_EXPORT aclnnStatus aclDestroyScalarList(const aclScalarList* list) {
  if (list)
    for (const aclScalar* s : list->members) destroy(s, "aclDestroyScalarList");
  return destroy(list, "aclDestroyScalarList");
}

ASCEND_SIM_EXPORT aclnnStatus aclGetViewShape(const aclTensor* t, int64_t** dims, uint64_t* n) {
  return t ? hand_out(t->value.shape, dims, n) : null_pointer("aclGetViewShape");
}

ASCEND_SIM_EXPORT aclnnStatus aclGetStorageShape(const aclTensor* t, int64_t** dims, uint64_t* n) {
  return t ? hand_out(t->value.storage_shape, dims, n) : null_pointer("aclGetStorageShape");
}

ASCEND_SIM_EXPORT aclnnStatus aclGetViewStrides(const aclTensor* t,
                                                int64_t** strides,
                                                uint64_t* n) {
  return t ? hand_out(t->value.strides, strides, n) : null_pointer("aclGetViewStrides");
}

ASCEND_SIM_EXPORT aclnnStatus aclGetViewOffset(const aclTensor* t, int64_t* offset) {
  if (!t || !offset) return null_pointer("aclGetViewOffset");
  *offset = t->value.offset;
  return 0;
}

ASCEND_SIM_EXPORT aclnnStatus aclGetFormat(const aclTensor* t, aclFormat* format) {
  if (!t || !format) return null_pointer("aclGetFormat");
  *format = t->value.format;
  return 0;
}

ASCEND_SIM_EXPORT aclnnStatus aclGetDataType(const aclTensor* t, aclDataType* dtype) {
  if (!t || !dtype) return null_pointer("aclGetDataType");
  *dtype = t->value.dtype;
  return 0;
}

ASCEND_SIM_EXPORT aclnnStatus aclGetRawTensorAddr(const aclTensor* t, void** address) {
  if (!t || !address) return null_pointer("aclGetRawTensorAddr");
  *address = t->value.data;
  return 0;
}

ASCEND_SIM_EXPORT aclnnStatus aclGetIntArraySize(const aclIntArray* a, uint64_t* size) {
  return size_of_array(a, size);
}

ASCEND_SIM_EXPORT aclnnStatus aclGetFloatArraySize(const aclFloatArray* a, uint64_t* size) {
  return size_of_array(a, size);
}

ASCEND_SIM_EXPORT aclnnStatus aclGetBoolArraySize(const aclBoolArray* a, uint64_t* size) {
  return size_of_array(a, size);
}

ASCEND_SIM_EXPORT aclnnStatus aclGetTensorListSize(const aclTensorList* list, uint64_t* size) {
  return size_of_list(list, size);
}

ASCEND_SIM_EXPORT aclnnStatus aclGetScalarListSize(const aclScalarList* list, uint64_t* size) {
  return size_of_list(list, size);
}

}  // extern "C"
