// Products of matrices that a warp makes together, and the matrices' way out of shared memory. Which lane holds what is
// PTX ISA's: of mma.m16n8k16 and ldmatrix.m8n8, "matrix fragments".
#pragma once

#include "exec/matrix_unit.h"
#include "exec/program.h"

namespace nvidia_sim {

/// mma.sync, by a unit of this kind: d[0..3], a: four registers of a, two of b, four of c.
void run_mma(Warp& w, const Instruction& i, uint32_t lanes, const MatrixUnit& unit);

/// ldmatrix, whose `count` matrices come transposed if mode says so (bit 0).
void run_ldmatrix(Warp& w, const Instruction& i, uint32_t lanes, bool transposed);

}  // namespace nvidia_sim
