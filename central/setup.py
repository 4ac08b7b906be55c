"""Before there is a central: `run` serves one page, which founds it, and then goes on as usual.

A part of the composition root (``central.server``).
"""

import asyncio
import hashlib
import logging
import os
from contextlib import AsyncExitStack
from functools import partial

from central import founding
from central.admin import setup_pages
from central.config import CentralSettings, in_url
from central.core import VERSION
from central.founding import Stage
from central.listeners import listening
from central.setup_code import SetupCode
from shared.pki import formats, keys
from shared.system.clock import SystemClock
from shared.system.files import remove
from shared.web import app, tls
from shared.web.app import Endpoint
from shared.web.pages import Pages

_LOG = logging.getLogger(__name__)
_FAREWELL_S = 2  # a browser still fetches what the last page is made of


async def passed(settings: CentralSettings, stopped: asyncio.Event, product: str) -> bool:
    """Serve the setup page until there is a central; False: it was ``stopped`` before.

    The caller holds the lock, so that no `init` comes in between.
    """
    stage = await founding.stage(settings)
    if stage is Stage.DONE:
        remove(settings.setup_code_path)  # a crash may have come before
        return True
    clock, web = SystemClock(), settings.web
    async with AsyncExitStack() as stack:
        code = SetupCode(settings.setup_code_path, clock, os.urandom)
        stack.callback(code.remove)
        setup = setup_pages.Setup(
            Pages("central.admin", product=product, version=VERSION),
            code,
            organization=settings.authority.organization,
            stage=stage,
            look=partial(founding.stage, settings),
            found=partial(founding.found_here, settings),
            confirm=partial(founding.confirm, settings),
            random=os.urandom,
        )
        application = app.create(setup.routes(), random=os.urandom, pages=setup.pages)
        key = keys.generate()
        certificate = tls.self_signed(key, web.names, clock.now().utc_us)
        context = tls.people_context(formats.pem([certificate]).encode(), tls.key_pem(key))
        await stack.enter_async_context(
            listening([Endpoint(application, web.address, web.port, context)])
        )
        _LOG.info(
            "There is no central here yet. Set one up at %s, with the code in the file %s.",
            f"https://{in_url(settings.host)}:{web.port}{setup_pages.PATH}",
            settings.setup_code_path,
        )
        fingerprint = hashlib.sha256(certificate).hexdigest()
        _LOG.info("The certificate of this page is self-signed, its SHA-256 is %s.", fingerprint)
        waiting = [asyncio.create_task(event.wait()) for event in (stopped, setup.done)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not stopped.is_set():
            await asyncio.wait(waiting[:1], timeout=_FAREWELL_S)
        for task in waiting:
            task.cancel()
    return setup.done.is_set()
