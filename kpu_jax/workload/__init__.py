"""What is asked of the chip: operations, tables of them, and networks."""

from kpu_jax.workload import networks
from kpu_jax.workload.conv import Conv
from kpu_jax.workload.dtypes import FORMATS, MAC_FORMATS, NumberFormat, common_mac, default_accumulator, parse_dtype
from kpu_jax.workload.gemm import Gemm
from kpu_jax.workload.networks import NETWORK_NAMES, network
from kpu_jax.workload.op import ACTIVATIONS, CONV, FIELDS, GEMM, KINDS, LOCATIONS, VECTOR, Op
from kpu_jax.workload.origin import HostWork, Origin, Tensor
from kpu_jax.workload.table import Node, Workload, check_workload
from kpu_jax.workload.validation import check_op
from kpu_jax.workload.vector import VECTOR_FUNCTIONS, VectorFunction, VectorOp
from kpu_jax.workload.window import im2col_bytes, unique_input_bytes

__all__ = [
    "ACTIVATIONS",
    "CONV",
    "FIELDS",
    "FORMATS",
    "GEMM",
    "KINDS",
    "HostWork",
    "LOCATIONS",
    "MAC_FORMATS",
    "NETWORK_NAMES",
    "Origin",
    "VECTOR",
    "VECTOR_FUNCTIONS",
    "Conv",
    "Gemm",
    "Node",
    "NumberFormat",
    "Op",
    "Tensor",
    "VectorFunction",
    "VectorOp",
    "Workload",
    "check_op",
    "check_workload",
    "common_mac",
    "default_accumulator",
    "im2col_bytes",
    "network",
    "networks",
    "parse_dtype",
    "unique_input_bytes",
]
