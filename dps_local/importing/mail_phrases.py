"""What mail programs, servers and companies write into people's mail, in the languages they write it in."""

from __future__ import annotations

import re


def _any(*phrases: str) -> str:
    return f"(?:{'|'.join(phrases)})"


# Labels of the lines above a quoted or forwarded mail, by what they say.
LABELS = {
    "from": "from|von|de|da|van|från|fra|lähettäjä|od|от|від|kimden|feladó|expéditeur|remitente|mittente"
    "|发件人|寄件者|差出人|보낸 ?사람|de la|από",
    "date": "sent|date|gesendet|datum|envoyé|enviado(?: el)?|enviad[oa](?: em)?|inviato|data|fecha|verzonden|skickat"
    "|sendt|dato|lähetetty|päivämäärä|päiväys|wysłano|odesláno|odoslané|отправлено|дата|надіслано|gönderildi|tarih"
    "|gönderme tarihi|küldve|elküldve|dátum|trimis|发送时间|发送日期|日期|寄件日期|送信日時|日付|보낸 ?날짜|날짜",
    "to": "to|an|à|a|para|aan|till|til|vastaanottaja|do|komu|кому|kime|címzett|către|pour|per|收件人|收件者|宛先"
    "|받는 ?사람",
    "cc": "cc|bcc|kopie|copie|copia|kopia|kopi|dw|копия|копія|bilgi|抄送|副本|참조",
    "subject": "subject|betreff|objet|asunto|oggetto|assunto|onderwerp|ämne|emne|aihe|temat|předmět|predmet|тема"
    "|konu|tárgy|subiect|主题|主旨|件名|제목",
}
WROTE = re.compile(
    _any(
        r"\bwrote\b|\bwrites\b|\bschrieb\b|\ba écrit\b|\bescribió\b|\bha scritto\b|\bescreveu\b|\bschreef\b",
        r"\bskrev\b|\bkirjoitti\b|\bnapisał|\bnapsal|\bnapísal|\bнаписал|\bпишет\b|\bписал|\bнаписав|\byazdı\b|写道",
        r"寫道|님이 작성|のメール|\bírta\b|\ba scris\b|έγραψε|\bva escriure\b|\bnapisao\b|\bje napisal|כתב",
    ),
    re.IGNORECASE,
)
# the words between two rules above a mail that is quoted or forwarded whole
DIVIDER = re.compile(
    _any(
        "original message|forwarded message|forwarded by|ursprüngliche nachricht|original-?nachricht",
        "weitergeleitete nachricht|message d'origine|message original|message transféré|mensaje original",
        "mensaje reenviado|messaggio originale|messaggio inoltrato|mensagem original|mensagem encaminhada",
        "oorspronkelijk bericht|doorgestuurd bericht|ursprungligt meddelande|vidarebefordrat meddelande",
        "oprindelig meddelelse|videresendt|opprinnelig melding|alkuperäinen viesti|välitetty viesti",
        "oryginalna wiadomość|wiadomość oryginalna|przekazana|původní zpráva|přeposlaná|исходное сообщение",
        "пересылаемое сообщение|özgün ileti|iletilen|原始邮件|邮件原件|转发|元のメッセージ|転送|원본 ?메[시세]지|전달",
    ),
    re.IGNORECASE,
)
FORWARDED_BELOW = re.compile(
    r"^\s*"
    + _any(
        "begin forwarded message|anfang der weitergeleiteten (?:nachricht|e-?mail)",
        "début du message (?:transféré|réexpédié)",
        "inicio del mensaje reenviado|inizio messaggio inoltrato|início da mensagem (?:reenviada|encaminhada)",
        "begin doorgestuurd bericht|vidarebefordrat (?:mejl|brev)|start på videresendt besked|videresendt melding",
        "välitetty viesti alkaa|początek przekazywanej wiadomości|začátek přeposílané zprávy|начало переадресованного",
    )
    + r"[^:]{0,20}\s?[:：]\s*$",
    re.IGNORECASE,
)
TAGLINE = re.compile(
    r"^\s*"
    + _any(
        r"sent (?:from|via|with) (?:my |mail for |outlook|proton ?mail|yahoo|the |a |samsung|gmail)",
        r"get outlook for|holen sie sich outlook|(?:—\s)?reply to this email directly|outlook für .{1,20} beziehen",
        r"von meinem .{1,40} gesendet|gesendet (?:mit|von|aus)\b",
        r"diese nachricht wurde von meinem|envoyé (?:de|depuis|à partir)\b|obtenir outlook|télécharger outlook",
        r"enviado (?:desde|do|a partir|del?)\b|obtener outlook|obter o outlook|inviato da(?:l|i)?\b|scarica outlook",
        r"verzonden (?:vanaf|met|via)\b|outlook voor .{1,20} downloaden|skickat från|sendt fra|hent outlook",
        r"lähetetty .{1,40}(?:sta|stä|lta|ltä)\b|wysłan[eoy]? z\b|odesláno z\b|odoslané z\b|отправлено (?:с|из)\b",
        r".{1,30}'?(?:dan|den|umdan) gönderildi|从我的.{1,20}发送|发自我的|.{1,20}から送信|나의 .{1,20}에서 보냄",
    ),
    re.IGNORECASE,
)
# the openings of a last paragraph that a company or a server wrote
DISCLAIMER = re.compile(
    r"^[\s*_]*"
    + _any(
        r"(?:confidentiality|legal|privacy|important) (?:notice|note|disclaimer|statement|information)\b",
        r"disclaimer\b|caution: |this (?:e-?mail|message|communication|transmission)\b.{0,120}?"
        r"\b(?:confidential|privileged|intended (?:only|solely)|been scanned|legally)",
        r"the (?:information|contents?) (?:contained|transmitted|in|of|this)\b.{0,120}?\b(?:confidential|privileged)",
        r"if you (?:are not the intended|(?:have )?received? this)|(?:please )?(?:consider|think of) the environment",
        r"diese (?:e-?mail|nachricht|mitteilung)\b.{0,160}?\b(?:vertraulich|ausschließlich|rechtlich)",
        r"(?:der|die) (?:inhalt|informationen?) (?:dieser|in dieser)\b.{0,120}?\bvertraulich",
        r"(?:wichtiger|rechtlicher) hinweis\b|vertraulichkeitshinweis|(?:bitte )?denken sie an die umwelt",
        r"(?:falls|wenn|sollten) sie (?:nicht der|diese (?:e-?mail|nachricht))\b.{0,160}?"
        r"\b(?:adressat|empfänger|irrtümlich)",
        r"ce (?:message|courriel|courrier)\b.{0,160}?\b(?:confidentiel|exclusive|destinataire)",
        r"(?:avant d'imprimer|pensez à l'environnement)|l'information contenue\b.{0,120}?\bconfidentiel",
        r"este (?:mensaje|correo|e-?mail)\b.{0,160}?\b(?:confidencial|exclusiv|destinatari)|aviso (?:legal|de)\b",
        r"(?:questo|il presente) (?:messaggio|e-?mail)\b.{0,160}?\b(?:riservat|confidenzial|destinatari)",
        r"esta (?:mensagem|comunicación|comunicação)\b.{0,160}?\b(?:confidencia|exclusiv|destinat)",
        r"(?:dit|deze) (?:e-?mail|bericht)\b.{0,160}?\b(?:vertrouwelijk|uitsluitend|geadresseerde)",
        r"(?:detta|denna|denne|dette) (?:meddelande|e-?post|e-?mail|besked)\b.{0,160}?\b(?:konfident|fortrolig)",
        r"(?:niniejsza|ta) wiadomość\b.{0,160}?\bpoufn|это (?:сообщение|письмо)\b.{0,160}?\bконфиденциал",
    ),
    re.IGNORECASE | re.DOTALL,
)
SIGN_OFF = re.compile(
    r"^\s*"
    + _any(
        r"(?:kind|best|warm|many|with|all the|very) .{0,20}\b(?:regards|wishes|best|thanks)|regards|best|cheers|thanks",
        r"thank you|sincerely|yours|take care|love|xx?\b|mit (?:freundlich|besten|lieben|herzlich)|(?:viele|liebe|beste"
        r"|schöne|herzliche|freundliche) grü(?:ß|ss)e|grü(?:ß|ss)e|gru(?:ß|ss)|lg\b|vg\b|mfg\b|bg\b|danke",
        r"(?:bien )?cordialement|bien à (?:vous|toi)|amitiés|salutations|amicalement|merci|bises|à bientôt",
        r"(?:un )?(?:cordial )?saludos?|atentamente|(?:un )?(?:fuerte )?abrazo|gracias|cordiali saluti|(?:un )?saluto",
        r"saluti|a presto|grazie|atenciosamente|abraços?|obrigad[oa]|(?:met )?(?:vriendelijke|hartelijke) groet|groet",
        r"(?:med )?(?:vänlig|bästa|venlig|vennlig|beste).{0,3} (?:hälsning|hilsen)|hälsningar|hilsen|mvh\b|terveisin",
        r"(?:ystävällisin )?terveisin|pozdr|z poważaniem|s pozdravem|с уважением|с наилучшими|saygılarımla|selamlar",
    ),
    re.IGNORECASE,
)
AUTOMATIC_SUBJECT = re.compile(
    r"^\s*"
    + _any(
        r"auto(?:matic|matische?|mated)?[ -]?(?:reply|response|antwort|antwoord)\b|out of (?:the )?office",
        r"(?:abwesenheit|abwesend)|réponse automatique|absence du bureau|respuesta automática|risposta automatica",
        r"resposta automática|automatiskt? svar|autosvar|automaattinen vastaus|automatyczna odpowiedź|автоответ",
        r"otomatik yanıt|自动答复|自動応答|자동 ?회신|undeliver(?:ed|able)|delivery (?:status|failure)|mail delivery",
        r"(?:accepted|declined|tentative|cancell?ed|zugesagt|abgelehnt|abgesagt|accepté|refusé|annulé) ?: ",
    ),
    re.IGNORECASE,
)


def _label_of() -> re.Pattern[str]:
    groups = "|".join(f"(?P<label_{role}>{words})" for role, words in LABELS.items())
    return re.compile(rf"^[\s>*_]*(?:{groups})[ \u3000]?\*?[:：]\*?(?:\s|\*|$|(?<=：))", re.IGNORECASE)


_LABEL = _label_of()


def header_role(line: str) -> str:
    """Return what a line of a quoted mail's header says: "from", "date", "to", "cc", "subject"; "" for another line."""
    match = _LABEL.match(line)
    return (match.lastgroup or "").removeprefix("label_") if match else ""
