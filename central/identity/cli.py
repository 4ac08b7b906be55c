"""``tma-central user | role | token | session``: people, and how they get in."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from central import config
from central.identity import orders
from shared.kernel.errors import BadRequestError
from shared.web import console, terminal
from shared.web.terminal import AsJson, OutputOption, out, show

user_app = typer.Typer(no_args_is_help=True, help="People, and what they may.")
role_app = typer.Typer(no_args_is_help=True, help="Roles: named sets of permissions.")
token_app = typer.Typer(no_args_is_help=True, help="API tokens of users.")
session_app = typer.Typer(no_args_is_help=True, help="Who is logged in at the pages.")

UserName = Annotated[str, typer.Argument(help="Name of the user.")]
RoleName = Annotated[str, typer.Argument(help="Name of the role.")]
Scope = Annotated[
    str, typer.Option(help="Where it holds: *, or pairs like line=press-1,profile=tls-server.")
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        help="File whose first line is the password; `-`: stdin. Default: one is made.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``tma-central``."""
    app.add_typer(user_app, name="user")
    app.add_typer(role_app, name="role")
    app.add_typer(token_app, name="token")
    app.add_typer(session_app, name="session")


@user_app.command("add")
def user_add(
    context: typer.Context,
    name: UserName,
    *,
    role: Annotated[str | None, typer.Option(help="A first role; `role list` shows all.")] = None,
    scope: Scope = "*",
    password_file: PasswordFile = None,
    login: Annotated[
        bool, typer.Option(help="Whether he has a password; not for programs and cards only.")
    ] = True,
) -> None:
    """Add a user. A password that is made here is printed once; he must choose his own."""
    order = terminal.order(
        orders.UserOrder,
        name=name,
        password=_password(password_file),
        login=login,
        role=role,
        scope=scope,
    )
    answer = _ask(context, "POST", "/users", order)
    made = answer["password"]
    typer.echo(made if made is not None else f"User {name} is added.")
    if "approval" in answer:
        typer.echo(f"The role waits for a second person: {answer['approval']}.", err=True)


@user_app.command("list")
def user_list(context: typer.Context, output: OutputOption = None, as_json: AsJson = False) -> None:
    """List the users with their rights."""
    rows = _ask(context, "GET", "/users")
    show(rows, terminal.chosen(output, as_json), "name", "state", "rights", "last_login")


@user_app.command("show")
def user_show(
    context: typer.Context, name: UserName, output: OutputOption = None, as_json: AsJson = False
) -> None:
    """Show one user with tokens, sessions and certificates."""
    found = _ask(context, "GET", f"/users/{name}")
    if terminal.chosen(output, as_json) is terminal.Output.JSON:
        terminal.print_json(found)
        return
    show([found], terminal.Output.TABLE, "name", "state", "rights", "last_login")
    show(found["tokens"], terminal.Output.TABLE, "id", "name", "state", "scope", "ends")
    show(found["sessions"], terminal.Output.TABLE, "id", "how", "address", "seen")
    show(found["certificates"], terminal.Output.TABLE, "id", "subject", "ends")


@user_app.command("disable")
def user_disable(context: typer.Context, name: UserName) -> None:
    """Refuse a user from now on: sessions end, tokens and cards are worth nothing meanwhile."""
    _ask(context, "POST", f"/users/{name}/disable")
    out.print(f"User {escape(name)} is disabled.")


@user_app.command("enable")
def user_enable(context: typer.Context, name: UserName) -> None:
    """Let a disabled or locked user in again."""
    _ask(context, "POST", f"/users/{name}/enable")
    out.print(f"User {escape(name)} may log in again.")


@user_app.command("password")
def user_password(
    context: typer.Context, name: UserName, password_file: PasswordFile = None
) -> None:
    """Give a user another first password: printed once if it is made here. His sessions end."""
    order = terminal.order(orders.PasswordOrder, password=_password(password_file))
    made = _ask(context, "POST", f"/users/{name}/password", order)["password"]
    typer.echo(made if made is not None else f"User {name} has another password.")


@user_app.command("assign")
def user_assign(context: typer.Context, name: UserName, role: RoleName, scope: Scope = "*") -> None:
    """Give a user a role within a scope."""
    order = terminal.order(orders.AssignmentOrder, role=role, scope=scope)
    answer = _ask(context, "POST", f"/users/{name}/assign", order)
    terminal.tell(answer, f"{name} is {role} on {scope}.")


@user_app.command("withdraw")
def user_withdraw(
    context: typer.Context, name: UserName, role: RoleName, scope: Scope = "*"
) -> None:
    """Take a role back; name the scope as `user list` shows it."""
    order = terminal.order(orders.AssignmentOrder, role=role, scope=scope)
    _ask(context, "POST", f"/users/{name}/withdraw", order)
    out.print(f"{escape(name)} is no longer {escape(role)} on {escape(scope)}.")


@user_app.command("bind")
def user_bind(
    context: typer.Context,
    name: UserName,
    certificate: Annotated[Path, typer.Argument(help="His certificate in PEM, without the key.")],
) -> None:
    """Let a client certificate or smart card stand for a user."""
    try:
        text = certificate.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequestError(f"{certificate} cannot be read as PEM.") from error
    order = terminal.order(orders.CertificateOrder, certificate=text)
    bound = _ask(context, "POST", f"/users/{name}/certificates", order)
    out.print(f"{escape(bound['subject'])} ({bound['id']}) stands for {escape(name)}.")


@user_app.command("unbind")
def user_unbind(
    context: typer.Context,
    name: UserName,
    sha256: Annotated[str, typer.Argument(help="As `user show` prints it.")],
) -> None:
    """Take a client certificate away from a user; his sessions end."""
    _ask(context, "DELETE", f"/users/{name}/certificates/{sha256}")
    out.print(f"The certificate no longer stands for {escape(name)}.")


@role_app.command("list")
def role_list(context: typer.Context, output: OutputOption = None, as_json: AsJson = False) -> None:
    """List the roles with their permissions."""
    rows = _ask(context, "GET", "/roles")
    show(rows, terminal.chosen(output, as_json), "name", "kind", "users", "permissions")


@role_app.command("put")
def role_put(
    context: typer.Context,
    name: RoleName,
    permission: Annotated[list[str], typer.Option(help="What it allows; repeat it.")],
) -> None:
    """Make a role of your own, or give it other permissions: who has it has them at once."""
    order = terminal.order(orders.RoleOrder, permissions=tuple(permission))
    answer = _ask(context, "PUT", f"/roles/{name}", order)
    terminal.tell(answer, f"Role {name} allows: {', '.join(permission)}.")


@role_app.command("remove")
def role_remove(context: typer.Context, name: RoleName) -> None:
    """Remove a role that nobody has."""
    _ask(context, "DELETE", f"/roles/{name}")
    out.print(f"Role {escape(name)} is removed.")


@token_app.command("add")
def token_add(
    context: typer.Context,
    user: UserName,
    name: Annotated[str, typer.Argument(help="What it is for, for people.")],
    *,
    permission: Annotated[
        list[str] | None, typer.Option(help="What it may at most; repeat it. Default: all he may.")
    ] = None,
    scope: Scope = "*",
    days: Annotated[int, typer.Option(help="Days until it ends.")] = 90,
) -> None:
    """Make an API token and print it, once: only a hash of it is kept."""
    order = terminal.order(
        orders.TokenOrder,
        user=user,
        name=name,
        permissions=tuple(permission or ()),
        scope=scope,
        days=days,
    )
    typer.echo(_ask(context, "POST", "/tokens", order)["token"])


@token_app.command("list")
def token_list(
    context: typer.Context,
    user: Annotated[str | None, typer.Option(help="Of this user only.")] = None,
    output: OutputOption = None,
    as_json: AsJson = False,
) -> None:
    """List the API tokens, the ended ones too."""
    rows = _ask(context, "GET", f"/tokens{_of(user)}")
    columns = ("id", "user", "name", "state", "scope", "permissions", "ends")
    show(rows, terminal.chosen(output, as_json), *columns)


@token_app.command("revoke")
def token_revoke(
    context: typer.Context, token_id: Annotated[str, typer.Argument(help="Its id.")]
) -> None:
    """End an API token at once."""
    _ask(context, "DELETE", f"/tokens/{token_id}")
    out.print(f"The token {escape(token_id)} is no longer accepted.")


@session_app.command("list")
def session_list(
    context: typer.Context,
    user: Annotated[str | None, typer.Option(help="Of this user only.")] = None,
    output: OutputOption = None,
    as_json: AsJson = False,
) -> None:
    """List who is logged in."""
    rows = _ask(context, "GET", f"/sessions{_of(user)}")
    show(rows, terminal.chosen(output, as_json), "id", "user", "how", "address", "since", "seen")


@session_app.command("end")
def session_end(
    context: typer.Context,
    user: UserName,
    session_id: Annotated[str | None, typer.Argument(help="Its id; none: all of the user.")] = None,
) -> None:
    """Log a user out, everywhere or in one session."""
    _ask(context, "DELETE", f"/sessions/{user}" + (f"/{session_id}" if session_id else ""))
    out.print(f"{escape(user)} is logged out.")


def _password(file: Path | None) -> str | None:
    """Read the first line of a file or of stdin; a terminal is asked without echo."""
    if file is None:
        return None
    if str(file) == "-":
        if sys.stdin.isatty():
            return typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        return sys.stdin.readline().rstrip("\r\n")
    try:
        return file.read_text("utf-8").split("\n", 1)[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequestError(f"{file} cannot be read.") from error


def _of(user: str | None) -> str:
    from urllib.parse import urlencode  # noqa: PLC0415  # costs start-up time

    return f"?{urlencode({'user': user})}" if user else ""


def _ask(
    context: typer.Context, method: str, route: str, order: console.Order | None = None
) -> Any:
    return console.ask(config.load(context.obj).control_socket, method, route, order)
