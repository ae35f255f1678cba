"""The application: `python -m fastapi_app.main`, in the folder above."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import uvicorn
from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline

from fastapi_app.database import create_tables, engine
from fastapi_app.outbox import deliver
from fastapi_app.routes import router
from sqlmodel_crud_utils.ext.cache import InMemoryCache, RedisCache, configure_cache
from sqlmodel_crud_utils.ext.fastapi import install_error_handlers


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Create the tables at startup, and send messages while the service runs."""
    await create_tables()
    # Redis, if several processes share the cache; otherwise this is the only process.
    address = os.environ.get("REDIS_URL")
    configure_cache(RedisCache(address) if address else InMemoryCache(), ttl=60)
    delivery = asyncio.create_task(deliver())
    yield
    delivery.cancel()
    with suppress(asyncio.CancelledError):
        await delivery
    configure_cache(None)
    await engine.dispose()


# Its page /docs needs no other server; the plain FastAPI class loads the scripts from a CDN.
app = FastAPIOffline(title="Heroes", version="1.0.0", lifespan=lifespan)
app.include_router(router)
install_error_handlers(app)


@app.get("/", include_in_schema=False)
async def lead_to_the_documentation() -> RedirectResponse:
    """Redirect browsers from the root to the documentation."""
    return RedirectResponse("/docs")


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    print(f"Heroes on http://127.0.0.1:{port}/docs", flush=True)
    uvicorn.run(app, host="127.0.0.1", port=port)
