"""The reader of compiled programs, on a program small enough to count by hand."""

import pytest

from omni_jax.planning.collectives import MeshShape
from omni_jax.planning.flops import instruction_flops
from omni_jax.planning.hlo import parse_hlo
from omni_jax.planning.roofline import program_cost
from omni_jax.planning.topology import CHIPS

MESH = MeshShape(("data", "fsdp", "tensor"), (1, 4, 2))
PROGRAM = """HloModule step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%fused (p: bf16[16,32], q: bf16[32,64]) -> bf16[16,64] {
  %p = bf16[16,32]{1,0:T(8,128)(2,1)} parameter(0)
  %q = bf16[32,64]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %product = bf16[16,64]{1,0:T(8,128)(2,1)} convolution(%p, %q), dim_labels=bf_io->bf
}, execution_thread="sparsecore"

%cond (c: (s32[], bf16[16,32])) -> pred[] {
  %c = (s32[]{:T(128)}, bf16[16,32]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%c), index=0
  %trips = s32[]{:T(128)} constant(5)
  ROOT %more = pred[]{:T(512)} compare(%i, %trips), direction=LT
}

%body (s: (s32[], bf16[16,32])) -> (s32[], bf16[16,32]) {
  %s = (s32[]{:T(128)}, bf16[16,32]{1,0}) parameter(0)
  %j = s32[]{:T(128)} get-tuple-element(%s), index=0
  %x = bf16[16,32]{1,0} get-tuple-element(%s), index=1
  %shard = bf16[8,64]{1,0} constant({...})
  %whole = bf16[32,64]{1,0:T(8,128)} all-gather(%shard), replica_groups=mesh['data'=1,'fsdp'=4,'tensor'=2] {'fsdp'}
  %y = bf16[16,64]{1,0} fusion(%x, %whole), kind=kOutput, calls=%fused, backend_config={"note":"
} of several lines"}
  %sizes = s32[2]{0} constant({9, 7})
  %weights = bf16[2,32,48]{2,1,0} constant({...})
  %gmm.3 = bf16[16,48]{1,0} custom-call(%sizes, %x, %weights), custom_call_target="tpu_custom_call"
  ROOT %next = (s32[], bf16[16,32]{1,0}) tuple(%j, %x)
}

ENTRY %main (arg: bf16[16,32]) -> f32[64] {
  %arg = bf16[16,32]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], bf16[16,32]{1,0}) tuple(%zero, %arg)
  %loop = (s32[], bf16[16,32]{1,0}) while(%start), condition=%cond, body=%body
  %gradient = f32[64]{0} constant({...})
  %reduced = f32[64]{0} all-reduce(%gradient), replica_groups=[4,2]<=[8], to_apply=%add
  %scattered = f32[16]{0} reduce-scatter(%reduced), replica_groups={{0,2,4,6},{1,3,5,7}}, dimensions={0}, to_apply=%add
  ROOT %moved = f32[64]{0} collective-permute(%reduced), source_target_pairs={{0,2},{2,4}}
}
"""


@pytest.fixture(scope="module")
def cost():
    return program_cost(parse_hlo(PROGRAM), MESH, CHIPS["v5p"], (2, 2, 2))


def test_loops_count_by_their_trips(cost):
    assert cost.flops == 5 * (2 * 16 * 32 * 64 + 2 * 16 * 32 * 48)
    assert not cost.unknown_kernels


def test_wire_bytes_by_kind_and_axis(cost):
    assert cost.bytes_by_kind == {
        "all-gather": 5 * 32 * 64 * 2 * 3 / 4,
        "all-reduce": 2 * 64 * 4 / 2,
        "reduce-scatter": 64 * 4 * 3 / 4,
        "collective-permute": 64 * 4,
    }
    fsdp = cost.bytes_by_kind["all-gather"] + cost.bytes_by_kind["reduce-scatter"] + 64 * 4
    assert cost.bytes_by_axis == {"fsdp": fsdp, "tensor": cost.bytes_by_kind["all-reduce"]}


@pytest.mark.parametrize(("sent", "room"), [(128, 256), (256, 128)])
def test_a_ragged_all_to_all_moves_what_there_is_and_not_the_room_for_it(sent, room):
    program = parse_hlo(f"""HloModule ragged

ENTRY %main (rows: bf16[{sent},64], out: bf16[{room},64], at: s32[4]) -> bf16[{room},64] {{
  %rows = bf16[{sent},64] parameter(0)
  %out = bf16[{room},64] parameter(1)
  %at = s32[4] parameter(2)
  ROOT %moved = bf16[{room},64] ragged-all-to-all(%rows, %out, %at, %at, %at, %at), replica_groups={{{{0,2,4,6}}}}
}}
""")
    assert (
        program_cost(program, MESH, CHIPS["v5p"], (2, 2, 2)).bytes_by_kind["ragged-all-to-all"] == 128 * 64 * 2 * 3 / 4
    )


def test_an_unknown_kernel_is_named():
    program = PROGRAM.replace("%gmm.3", "%mystery.3")
    assert program_cost(parse_hlo(program), MESH, CHIPS["v5p"], (2, 2, 2)).unknown_kernels == {"mystery"}


def test_a_padded_convolution_counts_only_taps_that_meet_input():
    text = """HloModule m

ENTRY %main (x: bf16[8,1,16], w: bf16[4,16,32]) -> bf16[8,4,32] {
  %x = bf16[8,1,16]{2,1,0} parameter(0)
  %w = bf16[4,16,32]{2,1,0} parameter(1)
  ROOT %y = bf16[8,4,32]{2,1,0} convolution(%x, %w), window={size=4 pad=3_3 rhs_reversal=1}, dim_labels=b0f_0io->b0f
}
"""
    assert program_cost(parse_hlo(text), MESH, CHIPS["v5p"], (2, 2, 2)).flops == 2 * 8 * 16 * 32 * 4


def test_a_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        parse_hlo("hello")


@pytest.mark.parametrize("rows", ["", "1,"])
def test_flops_of_the_attention_kernel_with_and_without_an_axis_of_rows(rows):
    """Two products of 4 heads x 8 x 8 / 2 pairs x 16; a device's only row may have no axis."""
    program = parse_hlo(f"""HloModule attention

ENTRY %main (q: bf16[{rows}4,8,16], k: bf16[{rows}2,8,16]) -> bf16[{rows}4,8,16] {{
  %q = bf16[{rows}4,8,16] parameter(0)
  %k = bf16[{rows}2,8,16] parameter(1)
  %blocks = s8[1,4,4] constant({{...}})
  ROOT %splash_mha_fwd.1 = bf16[{rows}4,8,16] custom-call(%blocks, %q, %k, %k), custom_call_target="tpu_custom_call"
}}
""")
    main = program.computations["main"]
    assert instruction_flops(program, main, main.instructions["splash_mha_fwd.1"]) == 2 * 2 * 4 * 8 * 8 / 2 * 16
