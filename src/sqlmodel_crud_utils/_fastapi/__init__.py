"""The rooms behind `sqlmodel_crud_utils.fastapi`; nothing else loads FastAPI."""
