"""A JAX function as a flat list of steps, read off its jaxpr. The only file that touches JAX's private parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax._src.source_info_util import is_user_filename, raw_frame_to_frame
from jax.extend import core
from jax.interpreters.partial_eval import dce_jaxpr

from kpu_jax.base.errors import KPUError, check_number, nearest, shown
from kpu_jax.frontends.flat import Array, Flat, Loop, Step
from kpu_jax.frontends.primitives import CALLS, CONTROL, KNOWN, REFUSED, VIEWS

_HERE = os.path.dirname(__file__)
_BODIES = ("jaxpr", "call_jaxpr", "call", "fun_jaxpr", "fwd_jaxpr")
Branch = tuple[list[Step], list[Array]]


class Reader:
    """Walks jaxprs into steps. `choose(branches) -> index` picks a branch where no weights are given."""

    def __init__(
        self, *, trips: Any, weights: Any, unsupported: str, choose: Callable[[list[list[Step]]], int],
        place: Callable[[str], str] | None = None,
    ) -> None:  # fmt: skip
        """`place(scope)` says where a step stands, in place of its line of Python."""
        self._trips, self._weights, self._choose, self._place = trips, weights, choose, place
        self._host_unknown = unsupported == "host"
        self.names: list[str] = []  # of loops and branches
        self._frames: dict[int, str] = {}
        self._around = [""]  # the lines of the calls that are being read
        self.unused = {key for given in (trips, weights) if isinstance(given, Mapping) for key in given}

    def read(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Flat:
        """The steps of `fn(*args, **kwargs)`, dead code removed. Raises `KPUError` for what cannot be traced."""
        closed, names = _trace(fn, args, kwargs)
        self._refuse_effects(closed.jaxpr)
        jaxpr, used = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
        inputs = [_array(v.aval, name=name) for v, name in zip(closed.jaxpr.invars, names, strict=True)]
        constants = [self._constant(v, c) for v, c in zip(closed.jaxpr.constvars, closed.consts, strict=True)]
        steps: list[Step] = []
        kept = [a for a, keep in zip(inputs, used, strict=True) if keep]
        results = self._walk(jaxpr, constants, kept, steps, "", 1, ())
        for var, array in zip(jaxpr.outvars, results, strict=True):
            if not array.size:
                made = next((f"{e.primitive.name} at {self._line(e)}" for e in jaxpr.eqns if var in e.outvars), "the function")
                raise KPUError(f"{made} gives a result of shape {array.shape}, with a dimension of zero: nothing to compute")
        return Flat(steps, results)

    def _constant(self, var: Any, value: Any) -> Array:
        array = _array(var.aval, name="constant")
        if array.size == 1 and isinstance(value, (np.ndarray, np.generic, int, float)):
            array.literal = np.asarray(value).item()
        return array

    def _refuse_effects(self, jaxpr: Any) -> None:
        for eqn in jaxpr.eqns:
            if eqn.primitive.name in REFUSED and not self._host_unknown:
                self._refuse(eqn, REFUSED[eqn.primitive.name])
            for inner in core.jaxprs_in_params(eqn.params):
                self._refuse_effects(inner)

    def _refuse(self, eqn: Any, reason: str) -> None:
        at = self._line(eqn)
        raise KPUError(
            f"{eqn.primitive.name} at {at or 'an unknown line'} cannot be traced: {reason}; leave it out of the function, "
            "or pass unsupported='host' to list it as work of the host"
        )

    def _walk(
        self, jaxpr: Any, constants: Sequence[Array], inputs: Sequence[Array], steps: list[Step],
        scope: str, repeats: float, loops: tuple[Loop, ...],
    ) -> list[Array]:  # fmt: skip
        """Append the steps of `jaxpr`; returns its results."""
        env: dict[Any, Array] = dict(zip(jaxpr.constvars, constants, strict=True))
        env.update(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: Any) -> Array:
            if isinstance(atom, core.Literal):
                return _array(atom.aval, constant=True, literal=atom.val)
            return env[atom]

        for eqn in jaxpr.eqns:
            name = eqn.primitive.name
            self._around.append(self._line(eqn))
            here = "/".join(x for x in (scope, str(eqn.source_info.name_stack)) if x)
            operands = [read(v) for v in eqn.invars]
            if name in CALLS:
                inner, given = body_of(eqn, operands)
                outputs = self._walk(inner.jaxpr, [_array(v.aval, name="constant") for v in inner.jaxpr.constvars], given,
                                     steps, here, repeats, loops)  # fmt: skip
            elif name in CONTROL:
                control = {"scan": self._scan, "while": self._while, "cond": self._cond}[name]
                outputs = control(eqn, operands, steps, here, repeats, loops)
            else:
                outputs = self._step(eqn, operands, steps, here, repeats, loops)
            self._around.pop()
            env.update((v, a) for v, a in zip(eqn.outvars, outputs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _step(self, eqn: Any, operands: list[Array], steps: list[Step], scope: str, repeats: float, loops: tuple[Loop, ...]) -> list[Array]:
        name = eqn.primitive.name
        if name not in KNOWN and not self._host_unknown:
            self._refuse(eqn, f"this version of kpu_jax does not know it ({len(KNOWN)} primitives are)")
        if name == "split" or (name in VIEWS and len(eqn.outvars) != len(operands)):
            pairs: list[Array] = [operands[0]] * len(eqn.outvars)
        else:
            pairs = operands
        if name in VIEWS:
            return [_view(v.aval, base) for v, base in zip(eqn.outvars, pairs, strict=False)]
        if name in ("copy", "convert_element_type") and operands[0].constant:
            return [_view(eqn.outvars[0].aval, operands[0])]
        if eqn.outvars and all(0 in getattr(v.aval, "shape", ()) for v in eqn.outvars):
            return [_array(v.aval, constant=True) for v in eqn.outvars]  # no work, as within an associative scan
        source = self._line(eqn) if self._place is None else self._place(scope)
        step = Step(name, eqn.params, operands, [], scope, source, repeats, loops)
        step.writes += [_array(v.aval, maker=step) for v in eqn.outvars]
        steps.append(step)
        return step.writes

    def _line(self, eqn: Any) -> str:
        """`file:line (function)` of the innermost frame of the user's own code; of library code, that of the call around."""
        traceback = eqn.source_info.traceback
        if traceback is None:
            return self._around[-1]
        known = self._frames.get(id(traceback))
        if known is None:
            code, lasti = traceback.raw_frames()
            user = [i for i, c in enumerate(code) if is_user_filename(c.co_filename)]
            own = [i for i in user if not _is_installed(code[i].co_filename)] or ([] if self._around[-1] else user)
            frame = raw_frame_to_frame(code[own[0]], lasti[own[0]]) if own else None
            known = "" if frame is None else f"{frame.file_name}:{frame.start_line} ({frame.function_name})"
            self._frames[id(traceback)] = known
        return known or self._around[-1]

    # -- loops and branches

    def _name(self, kind: str, scope: str) -> str:
        own = f"{kind}{len(self.names)}"
        self.names.append(f"{scope}/{own}" if scope else own)
        return self.names[-1]

    def _given(self, table: Any, name: str, eqn: Any) -> Any:
        """What the user gave for this loop or branch: by its name, by its source line, or for all."""
        if not isinstance(table, Mapping):
            return table
        line = self._line(eqn)
        for key, value in table.items():
            if isinstance(key, str) and (key == name or name.endswith(f"/{key}") or f"{key} (" in f"/{line}"):
                self.unused.discard(key)
                return value
        return None

    def _scan(self, eqn: Any, operands: list[Array], steps: list[Step], scope: str, repeats: float, loops: tuple[Loop, ...]) -> list[Array]:
        p = eqn.params
        body, length = p["jaxpr"], p["length"]
        fixed, carries = scan_counts(p)
        loop = Loop(self._name("scan", scope), length, operands)
        start = operands[fixed : fixed + carries]
        slices = [_view(v.aval, a) for v, a in zip(body.jaxpr.invars[fixed + carries :], operands[fixed + carries :], strict=True)]
        if length == 0:
            return start + [_array(v.aval, constant=True) for v in eqn.outvars[carries:]]
        ends, outs = self._iterate(body, operands[:fixed], start, slices, loop, steps, scope, repeats, loops)
        return ends + [_array(v.aval, merges=(a,)) for v, a in zip(eqn.outvars[carries:], outs, strict=True)]

    def _iterate(
        self, body: Any, fixed: list[Array], start: list[Array], slices: list[Array], loop: Loop,
        steps: list[Step], scope: str, repeats: float, loops: tuple[Loop, ...],
    ) -> tuple[list[Array], list[Array]]:  # fmt: skip
        carry = [_array(v.aval, merges=(a,)) for v, a in zip(body.jaxpr.invars[len(fixed) :], start, strict=False)]
        constants = [self._constant(v, c) for v, c in zip(body.jaxpr.constvars, body.consts, strict=True)]
        outs = self._walk(body.jaxpr, constants, [*fixed, *carry, *slices], steps, scope, repeats * loop.length, (*loops, loop))
        for before, after in zip(carry, outs, strict=False):
            if before is not after:
                before.carried = after
        ends = [start[i] if outs[i] is carry[i] else _merge(carry[i], (outs[i],)) for i in range(len(carry))]
        return ends, outs[len(carry) :]

    def _while(
        self, eqn: Any, operands: list[Array], steps: list[Step], scope: str, repeats: float, loops: tuple[Loop, ...]
    ) -> list[Array]:
        p = eqn.params
        test, body = p["cond_nconsts"], p["body_nconsts"]
        name = self._name("while", scope)
        fixed, start = operands[test : test + body], operands[test + body :]
        trips = self._given(self._trips, name, eqn)
        if trips is None:
            trips = _counted(p["cond_jaxpr"], p["body_jaxpr"], operands[:test], fixed, start)
        if trips is None:
            raise KPUError(
                f"the loop {name!r} at {self._line(eqn) or 'an unknown line'} runs as often as its data say: give the number "
                f"of iterations, while_trips=100 for all such loops or while_trips={{{name!r}: 100}} for this one"
            )
        length = check_number(f"while_trips of {name!r}", trips, "iterations", high=2.0**53)
        if length == 0:
            return start
        loop = Loop(name, length, operands)
        ends, _ = self._iterate(p["body_jaxpr"], fixed, start, [], loop, steps, scope, repeats, loops)
        carry = [_array(a_in, merges=(a,)) for a_in, a in zip(p["cond_jaxpr"].in_avals[test:], ends, strict=True)]
        self._walk(p["cond_jaxpr"].jaxpr, [], [*operands[:test], *carry], steps, scope, repeats * (length + 1), (*loops, loop))
        return ends

    def _cond(self, eqn: Any, operands: list[Array], steps: list[Step], scope: str, repeats: float, loops: tuple[Loop, ...]) -> list[Array]:
        branches, inputs = eqn.params["branches"], operands[1:]
        name = self._name("cond", scope)
        weights = self._given(self._weights, name, eqn)
        walked: list[Branch] = []
        for i, branch in enumerate(branches):
            listed: list[Step] = []
            share = repeats if weights is None else repeats * _weights(name, weights, len(branches))[i]
            constants = [self._constant(v, c) for v, c in zip(branch.jaxpr.constvars, branch.consts, strict=True)]
            outs = self._walk(branch.jaxpr, constants, inputs, listed, scope, share, loops) if share else []
            walked.append((listed, outs))
        if weights is None:
            chosen = self._choose([listed for listed, _ in walked])
            walked = [walked[chosen]]
        taken = [(listed, outs) for listed, outs in walked if outs or not eqn.outvars]
        for listed, _ in taken:
            steps += listed
        return [_array(v.aval, merges=tuple(outs[i] for _, outs in taken)) for i, v in enumerate(eqn.outvars)]


def _weights(name: str, weights: Any, count: int) -> list[float]:
    if not isinstance(weights, Sequence) or len(weights) != count:
        raise KPUError(f"branch_weights of {name!r} = {shown(weights)} must hold {count} numbers, one for each branch in order")
    fractions = [check_number(f"branch_weights of {name!r}", w, "fraction", high=1.0) for w in weights]
    if abs(sum(fractions) - 1) > 1e-6:
        raise KPUError(f"branch_weights of {name!r} = {shown(weights)} add up to {sum(fractions):g}: give fractions of 1")
    return fractions


def _trace(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, list[str]]:
    """The closed jaxpr of `fn`, and the path of every array among its arguments. Other leaves stay as they are."""
    leaf = len(jax.tree_util.tree_leaves(fn)) == 1 and jax.tree_util.tree_leaves(fn)[0] is fn
    call, given = (fn, args) if leaf else (_apply, (fn, *args))  # a module is a pytree, its parameters arguments
    paths, tree = jax.tree_util.tree_flatten_with_path((given, kwargs))
    leaves = [leaf for _, leaf in paths]
    at = [i for i, leaf in enumerate(leaves) if is_array(leaf)]
    for i in at:
        shape = getattr(leaves[i], "shape", ())
        if not all(isinstance(n, (int, np.integer)) for n in shape):
            raise KPUError(f"argument {_path(paths[i][0])} has the unknown shape {shown(shape)}: give sizes as integers")
        if 0 in shape:
            raise KPUError(f"argument {_path(paths[i][0])} has the shape {tuple(shape)}: a dimension of zero holds no data to work on")

    def flat(*arrays: Any) -> Any:
        filled = list(leaves)
        for i, array in zip(at, arrays, strict=True):
            filled[i] = array
        again, named = jax.tree_util.tree_unflatten(tree, filled)
        out = jax.tree_util.tree_leaves(call(*again, **named))
        return [x for x in out if is_array(x)]

    closed = jax.make_jaxpr(flat)(*(leaves[i] for i in at))
    return closed, [_path(paths[i][0]) for i in at]


def _is_installed(filename: str) -> bool:
    """Whether a file belongs to an installed package: flax's line of a layer says less than that of its call."""
    return "site-packages" in filename or "dist-packages" in filename


def _apply(module: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return module(*args, **kwargs)


def is_array(leaf: Any) -> bool:
    """Whether a leaf of the arguments is traced; others (functions, text, booleans) are handed on as they are."""
    if isinstance(leaf, (bool, str, bytes)):
        return False
    return isinstance(leaf, (int, float, complex, np.ndarray, np.generic, jax.Array, jax.ShapeDtypeStruct)) and not (
        isinstance(leaf, np.ndarray) and leaf.dtype == object
    )


def _path(path: Sequence[Any]) -> str:
    """`args[0]['w']` of a path into (args, kwargs)."""
    head = "args" if path[0].idx == 0 else "kwargs"
    return head + jax.tree_util.keystr(tuple(path[1:]))


def body_of(eqn: Any, operands: list[Any]) -> tuple[Any, list[Any]]:
    """The closed jaxpr that a call inlines, and those of its operands that this takes; of a linear solve the solution's."""
    if "const_lengths" in eqn.params:
        counts = eqn.params["const_lengths"]
        first = counts.matvec + counts.vecmat
        return eqn.params["jaxprs"].solve, [*operands[first : first + counts.solve], *operands[sum(counts) :]]
    inner = next((eqn.params[key] for key in _BODIES if key in eqn.params), None)
    if isinstance(inner, core.ClosedJaxpr):
        return inner, operands
    if isinstance(inner, core.Jaxpr):
        return core.ClosedJaxpr(inner, ()), operands
    raise KPUError(f"the call {eqn.primitive.name} has no body that this version of kpu_jax can read")


def scan_counts(params: Mapping[str, Any]) -> tuple[int, int]:
    """(constants, carries) among the operands of a scan, by its parameters; slices are the rest.

    JAX up to 0.10 counts them; later it groups the operands in a tree.
    """
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    constants, carries, _ = params["ft_in"].unpack()
    return len(list(constants)), len(list(carries))


def _array(aval: Any, **fields: Any) -> Array:
    shape = getattr(aval, "shape", ())
    if not all(isinstance(n, (int, np.integer)) for n in shape):
        raise KPUError(f"an array of the function has the unknown shape {shown(shape)}: give sizes as integers")
    return Array(tuple(int(n) for n in shape), str(getattr(aval, "dtype", "token")), **fields)


def _view(aval: Any, base: Array) -> Array:
    return _array(aval, view_of=base, constant=base.constant, literal=base.literal)


def _merge(like: Array, merges: tuple[Array, ...]) -> Array:
    return Array(like.shape, like.dtype, merges=merges)


def _counted(test: Any, body: Any, test_fixed: list[Array], body_fixed: list[Array], start: list[Array]) -> float | None:
    """Iterations of `i = i0; while i < n: i += step` with all three known; None for any other loop."""
    if len(test.jaxpr.eqns) != 1 or test.jaxpr.eqns[0].primitive.name != "lt":
        return None
    eqn = test.jaxpr.eqns[0]
    if eqn.outvars[0] is not test.jaxpr.outvars[0]:
        return None
    counter, limit = eqn.invars
    invars = list(test.jaxpr.invars)
    if isinstance(counter, core.Literal) or counter not in invars or invars.index(counter) < len(test_fixed):
        return None
    at = invars.index(counter) - len(test_fixed)
    before, after = body.jaxpr.invars[len(body_fixed) + at], body.jaxpr.outvars[at]
    adds = [e for e in body.jaxpr.eqns if e.outvars[0] is after and e.primitive.name == "add"]
    if len(adds) != 1 or before not in adds[0].invars:
        return None
    other = [v for v in adds[0].invars if v is not before]
    if len(other) != 1 or not isinstance(other[0], core.Literal):
        return None
    if isinstance(limit, core.Literal):
        end = limit.val
    else:
        position = invars.index(limit)
        kept = position - len(test_fixed)
        if kept >= 0 and body.jaxpr.outvars[kept] is not body.jaxpr.invars[len(body_fixed) + kept]:
            return None
        end = (test_fixed[position] if kept < 0 else start[kept]).literal
    first, by = start[at].literal, other[0].val
    if end is None or first is None or by <= 0:
        return None
    return float(max(0, -(-(int(end) - int(first)) // int(by))))


def unknown_keys(reader: Reader) -> None:
    """`KPUError` for a loop or branch that the user named and the function does not have."""
    for key in sorted(map(shown, reader.unused)):
        raise KPUError(f"while_trips or branch_weights name {key}, which the function does not have: {nearest(key, reader.names)}")


def user_line(error: BaseException) -> str:
    """`file:line (function)` of the innermost frame of the user's code that an exception passed."""
    frame, found = error.__traceback__, ""
    while frame is not None:
        code = frame.tb_frame.f_code
        if is_user_filename(code.co_filename) and not code.co_filename.startswith(_HERE):
            found = found if found and _is_installed(code.co_filename) else f"{code.co_filename}:{frame.tb_lineno} ({code.co_name})"
        frame = frame.tb_next
    return found
