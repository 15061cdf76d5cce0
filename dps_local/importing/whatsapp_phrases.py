"""What WhatsApp writes in the place of a message, as it is said in the languages of its exports.

It stands here where exports of Android, or old ones of iOS, do not mark it with a U+200E. Compared without case.
"""

from __future__ import annotations


def _phrases(text: str) -> frozenset[str]:
    return frozenset(line.strip().casefold() for line in text.splitlines() if line.strip())


# without a full stop, which some languages have
DELETED = _phrases("""
    This message was deleted
    You deleted this message
    Diese Nachricht wurde gelöscht
    Du hast diese Nachricht gelöscht
    Se eliminó este mensaje
    Este mensaje fue eliminado
    Eliminaste este mensaje
    Ce message a été supprimé
    Vous avez supprimé ce message
    Esta mensagem foi apagada
    Essa mensagem foi apagada
    Mensagem apagada
    Você apagou esta mensagem
    Questo messaggio è stato eliminato
    Hai eliminato questo messaggio
    Dit bericht is verwijderd
    Je hebt dit bericht verwijderd
    U hebt dit bericht verwijderd
    Это сообщение было удалено
    Данное сообщение удалено
    Вы удалили это сообщение
    Вы удалили данное сообщение
    Bu mesaj silindi
    Bu mesajı sildiniz
    Ta wiadomość została usunięta
    Tämä viesti poistettiin
    このメッセージは削除されました
    此訊息已刪除
    此消息已被删除
    삭제된 메시지입니다
    تم حذف هذه الرسالة
""")

# Android has the like of "<Media omitted>" in any language, and "null" for what cannot be exported
OMITTED = _phrases("""
    null
    image omitted
    video omitted
    audio omitted
    GIF omitted
    sticker omitted
    document omitted
    Contact card omitted
    Bild weggelassen
    Video weggelassen
    Audio weggelassen
    GIF weggelassen
    Sticker weggelassen
    Dokument weggelassen
    imagen omitida
    Video omitido
    audio omitido
    GIF omitido
    sticker omitido
    documento omitido
    image absente
    vidéo absente
    audio omis
    GIF retiré
    sticker omis
    document manquant
    imagem ocultada
    vídeo omitido
    áudio ocultado
    figurinha omitida
    immagine omessa
    video omesso
    audio omesso
    GIF esclusa
    sticker non incluso
    afbeelding weggelaten
    video weggelaten
    audio weggelaten
    GIF weggelaten
    sticker weggelaten
""")

# behind the name of a file, in brackets
ATTACHED = _phrases("""
    file attached
    Datei angehängt
    archivo adjunto
    fichier joint
    arquivo anexado
    ficheiro anexado
    file allegato
    bestand bijgevoegd
    файл добавлен
    dosya ekli
""")

# behind a message, in <>, without a full stop
EDITED = _phrases("""
    This message was edited
    Diese Nachricht wurde bearbeitet
    Se editó este mensaje
    Ce message a été modifié
    Mensagem editada
    Questo messaggio è stato modificato
    Dit bericht is bewerkt
    Сообщение изменено
    Bu mesaj düzenlendi
""")
